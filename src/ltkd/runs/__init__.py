"""A run from configuration to result: teacher, student, what is computed of the finished network."""
