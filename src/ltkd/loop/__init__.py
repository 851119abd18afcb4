"""Training: a run from data to result, one fit() for teacher and student, evaluation, checkpoints."""
