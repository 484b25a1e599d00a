"""This machine as a provider: each job is a process group that outlives whoever submitted it."""
