"""Names the code that results were made by. Knows no torch, so that it starts at once."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any


def commit_label(state: Mapping[str, Any] | None) -> str:
    """A git_state as messages and tables call it: "0ab8356909, with changes"."""
    if state is None:
        return "unknown"
    return f"{state['commit'][:10]}{', with changes' if state['modified'] else ''}"


def code_notes(cells: Iterable[tuple[str, list[Mapping[str, Any]]]]) -> list[str]:
    """Notes a line for each cell, (label, results), whose runs are of different code or may be, by commit and seeds."""
    notes = []
    for label, runs in cells:
        seeds = defaultdict(list)
        for run in runs:
            for state in {commit_label(one): one for one in _states(run)}:
                seeds[state].append(str(run["seed"]))
        by_code = [f"{state} (seed {', '.join(sorted(of, key=int))})" for state, of in sorted(seeds.items())]
        if len(by_code) > 1:
            notes.append(f"different code in one cell: {label}: {'; '.join(by_code)}")
        elif len(runs) > 1 and "with changes" in "".join(by_code):
            notes.append(f"perhaps different code in one cell: {label}: {by_code[0]}")
    return notes


def _states(run: Mapping[str, Any]) -> list[Mapping[str, Any] | None]:
    """Commit and changes of every session of the training; nothing of a teacher that only its student's result names.

    Sessions from before they were noted say nothing, but the one that wrote the result does.
    """
    sessions = [session["git"] for session in run.get("sessions") or [] if session.get("git")]
    return [*sessions, run["git"]] if "git" in run else sessions
