"""Carries runs from one machine to another: finished results, teachers, checkpoints of what is unfinished."""

from ltkd.carry.incoming import Arrivals, import_runs
from ltkd.carry.outgoing import Departures, export_runs

__all__ = ["Arrivals", "Departures", "export_runs", "import_runs"]
