"""The training loop, one for teacher and student: steps, evaluation, checkpoints, metrics."""
