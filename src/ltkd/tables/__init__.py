"""A paper's tables as data, and plans of the runs that they still lack."""
