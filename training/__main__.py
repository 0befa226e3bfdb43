"""Runs the command line: `python -m training`."""

import sys

try:
    from training.cli import main
except KeyboardInterrupt:  # importing torch takes seconds, in which Ctrl-C is no fault either
    sys.exit(130)

main(prog_name="python -m training")
