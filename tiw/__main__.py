"""`python -m tiw`."""

import sys

from tiw.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
