"""What the entry points of the contract do, in shell: for where there is no Spillway, or where starting it only costs."""

from __future__ import annotations

from typing import Final

IN_SHELL: Final = r"""#!/bin/sh
case "$SPILLWAY_SUBMISSION" in
  *:exit_with_3*) exit 3 ;;
  *:run_on*) trap 'exit 1' TERM; while :; do sleep 0.2; done ;;
  *:print_text*) printf 'first line\nsecond line: \303\244\342\202\254\360\237\230\200\n' ;;
  *:preempt_itself*) exit 75 ;;
  *:meet*) [ "${SLURM_NNODES:-$SPILLWAY_GANG_NODES}" -gt 1 ] && [ -n "${SLURM_PROCID:-$JOB_COMPLETION_INDEX}" ] ;;
esac
"""
