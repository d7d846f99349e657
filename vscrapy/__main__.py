"""``python -m vscrapy``."""

import sys

from vscrapy.cli import main

if __name__ == "__main__":
    sys.exit(main())
