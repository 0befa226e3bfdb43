"""`python -m client`."""

import sys

try:
    from client.cli import main
except KeyboardInterrupt:  # importing takes a while, in which Ctrl-C is no fault either
    sys.exit(130)

main()
