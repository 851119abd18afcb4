"""`python scripts/predict.py` and `ltkd-predict` are one command: ltkd/commands/predict.py says what it does."""

import sys

from ltkd.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
