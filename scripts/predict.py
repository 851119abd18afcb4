"""`python scripts/predict.py` and `ltkd-predict` are one command: ltkd/commands/predict.py says what it does."""

import sys

from ltkd.commands.predict import main
from ltkd.console import write_plainly

if __name__ == "__main__":
    write_plainly()
    sys.exit(main())
