"""Results of finished runs: read, collected over seeds, compared."""
