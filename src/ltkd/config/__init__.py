"""The configuration: composed from conf/, checked, typed, and hashed into what names a run."""
