"""`python -m mountd`: the command line."""

import sys

from mountd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
