"""Optimizers, and the average of the weights along a training."""
