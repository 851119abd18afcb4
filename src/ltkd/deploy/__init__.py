"""The finished network in use: predictions, files for other programs, an audit, and the choice of what to train."""
