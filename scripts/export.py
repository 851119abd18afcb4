"""`python scripts/export.py` and `ltkd-export` are one command: ltkd/commands/export.py says what it does."""

import sys

from ltkd.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
