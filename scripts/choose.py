"""`python scripts/choose.py` and `ltkd-choose` are one command: ltkd/commands/choose.py says what it does."""

import sys

from ltkd.commands.choose import main

if __name__ == "__main__":
    sys.exit(main())
