"""Names the code that results were made by, and where: devices, threads, torch. Imports no torch: starts at once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Run = Mapping[str, Any]  # a result
Cell = tuple[str, list[Run]]  # label, runs that differ in their seeds alone


def commit_label(state: Mapping[str, Any] | None) -> str:
    """A git_state as messages and tables call it: "0ab8356909, with changes"."""
    if state is None:
        return "unknown"
    return f"{state['commit'][:10]}{', with changes' if state['modified'] else ''}"


def threads_label(counts: Iterable[int]) -> str:
    """Numbers of threads as messages and tables call them: "1 thread", "1 and 2 threads"."""
    counts = sorted(counts)
    return f"{' and '.join(map(str, counts))} thread{'s' * (counts != [1])}"


def of_several_commits(runs: Iterable[Run]) -> bool:
    return len(_by_seeds(runs, _commits)) > 1


def code_notes(cells: Iterable[Cell]) -> list[str]:
    """Notes a line for each cell whose runs are of different code or may be, by commit and seeds."""
    notes = []
    for label, runs in cells:
        by_code = _by_seeds(runs, _commits)
        if len(by_code) > 1:
            notes.append(f"different code in one cell: {label}: {'; '.join(by_code)}")
        elif len(runs) > 1 and "with changes" in "".join(by_code):
            notes.append(f"perhaps different code in one cell: {label}: {by_code[0]}")
    return notes


def circumstance_notes(cells: Iterable[Cell]) -> list[str]:
    """Notes a line for each cell whose runs had different devices, CPU threads, processes or versions of torch.

    The last digits of a training depend on them, and with the number of processes the images that batch normalisation
    takes together.
    """
    kinds: dict[str, Callable[[Run], Iterable[str | None]]] = {
        "devices": lambda run: _values(run, "device"),
        "numbers of CPU threads": lambda run: map(str, threads_of(run)),
        "numbers of processes": _numbers_of_processes,
        "versions of torch": lambda run: [*_values(run, "torch"), run.get("versions", {}).get("torch")],
    }
    notes = []
    for label, runs in cells:
        for kind, values_of in kinds.items():
            if len(values := _by_seeds(runs, values_of)) > 1:
                notes.append(f"different {kind} in one cell: {label}: {'; '.join(values)}")
    return notes


def threads_of(run: Run) -> set[int]:
    """The numbers of threads that a run was trained with on a CPU; empty where it was on a GPU, or is not known."""
    on_cpu = (training for training in _trainings(run) if (training.get("device") or "").startswith("cpu"))
    return {threads for training in on_cpu if (threads := training.get("threads"))}


def _trainings(run: Run) -> list[Mapping[str, Any]]:
    """The sessions of the training, and the process that wrote the result; older results have only that."""
    return [*(run.get("sessions") or []), run]


def _numbers_of_processes(run: Run) -> list[str]:
    return [str(session.get("ranks", 1)) for session in run.get("sessions") or [{}]]


def _values(run: Run, key: str) -> list[str | None]:
    return [training.get(key) for training in _trainings(run)]


def _by_seeds(runs: Iterable[Run], values_of: Callable[[Run], Iterable[str | None]]) -> list[str]:
    seeds = defaultdict(list)
    for run in runs:
        for value in dict.fromkeys(values_of(run)):
            if value is not None:
                seeds[value].append(str(run["seed"]))
    return [f"{value} (seed {', '.join(sorted(of, key=int))})" for value, of in sorted(seeds.items())]


def _commits(run: Run) -> list[str]:
    """Commit and changes of every session of the training; nothing of a teacher that only its student's result names.

    Sessions from before they were noted say nothing, but the one that wrote the result does.
    """
    sessions = [session["git"] for session in run.get("sessions") or [] if session.get("git")]
    return [commit_label(state) for state in ([*sessions, run["git"]] if "git" in run else sessions)]
