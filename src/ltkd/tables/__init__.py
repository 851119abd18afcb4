"""A paper's tables as data, and what of them is left to run."""
