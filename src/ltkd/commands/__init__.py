"""The commands behind src/train.py, and what makes command lines of scripts."""
