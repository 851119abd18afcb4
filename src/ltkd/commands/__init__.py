"""The commands behind src/train.py, and how scripts read their arguments."""
