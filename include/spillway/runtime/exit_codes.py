"""What the exit code of a job says; the same on every backend."""

SUCCEEDED = 0
FAILED = 1
"""The user's code failed, or its result could not be kept."""
BAD_ENTRY_POINT = 64
"""The entry point or its arguments are wrong; no attempt will help. EX_USAGE of sysexits.h."""
PREEMPTED = 75
"""The job stopped because its capacity is taken back, and will go on elsewhere. EX_TEMPFAIL of sysexits.h."""
