"""`python scripts/audit.py` and `ltkd-audit` are one command: ltkd/commands/audit.py says what it does."""

import sys

from ltkd.commands.audit import main

if __name__ == "__main__":
    sys.exit(main())
