"""Finds teachers that were trained more than once, with other weights each time. Knows no torch.

Two processors or GPUs differ in the last bits, so a teacher that is trained again on another machine has the same hash
and other weights. Students of the one and of the other do not belong into one mean.
"""

from collections import defaultdict
from collections.abc import Iterable

from ltkd.results.result import Result, TeacherResult


def conflicting_teachers(results: Iterable[Result]) -> dict[str, str]:
    """Describe, by its hash, each teacher of which the results know several weights.

    Results of teachers and of students count alike. Older ones, which do not say what their teacher's weights were,
    agree with any.
    """
    known: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for network in [*([result] if result["method"] == "teacher" else []), *teachers_of(result)]:
            if weights := network.get("weights_sha256"):
                known[network["hash"]][weights].append(result["directory"])
    return {
        teacher: f"teacher {teacher} was trained several times, with different weights: "
        + "; ".join(f"{weights[:8]} is of {_listed(students)}" for weights, students in by_weights.items())
        for teacher, by_weights in known.items()
        if len(by_weights) > 1
    }


def teachers_of(result: Result) -> list[TeacherResult]:
    """Returns what a student's result says of each of its teachers; older ones know no further teachers."""
    first = [result["teacher_result"]] if result.get("teacher_result") else []
    return [*first, *(result.get("further_teacher_results") or [])]


def teacher_notes(cells: Iterable[tuple[str, list[Result]]]) -> list[str]:
    """Notes, for each data set and student, that some rows had one teacher for their seeds, and others several."""
    rows: dict[tuple[str, str], dict[bool, list[str]]] = defaultdict(lambda: defaultdict(list))
    for label, runs in cells:
        seeds = {teacher.get("seed") for run in runs if (teacher := run["identity"].get("teacher"))}
        if seeds and len(runs) > 1:
            rows[runs[0]["dataset"], runs[0]["student"]][len(seeds) > 1].append(label)
    return [
        f"deviations are not alike: over one teacher's students alone in {', '.join(by_number[False])}; over several "
        f"teachers in {', '.join(by_number[True])}"
        for by_number in rows.values()
        if len(by_number) > 1
    ]


def _listed(directories: list[str]) -> str:
    more = f" and {len(directories) - 1} more" if len(directories) > 1 else ""
    return f"{directories[0]}{more}"
