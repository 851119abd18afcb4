"""Runs many jobs as processes of their own, some at a time."""

from ltkd.sweep.display import Display, summary
from ltkd.sweep.jobs import Job, JobOutcome, check_jobs, expand_overrides
from ltkd.sweep.runner import exit_code, num_at_a_time, run_jobs, run_sweep

__all__ = [
    "Display",
    "Job",
    "JobOutcome",
    "check_jobs",
    "exit_code",
    "expand_overrides",
    "num_at_a_time",
    "run_jobs",
    "run_sweep",
    "summary",
]
