"""Training: the teacher store, one fit() for teacher and student, evaluation, checkpoints, and a run from data to result."""
