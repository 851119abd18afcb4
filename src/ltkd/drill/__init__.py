"""A drill of the whole program: it is killed, starved of disk, crowded and misused, and has to end as undisturbed."""
