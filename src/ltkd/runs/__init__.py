"""Runs from configuration to result, with teacher, student and what is computed of the finished network."""
