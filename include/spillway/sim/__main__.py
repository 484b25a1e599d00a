"""`python -m spillway.sim`: the command `spillway simulate`."""

from __future__ import annotations

import argparse
import sys

from spillway.sim.command import add_arguments, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m spillway.sim")
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
