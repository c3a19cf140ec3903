"""`python -m pollination` is the command `pollination`."""

import sys

from pollination.cli import main

if __name__ == "__main__":
    sys.exit(main())
