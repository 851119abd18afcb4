"""Explains a report's numbers to its reader, in sentences."""

from ltkd.methods import FIDELITY
from ltkd.report.content import Column, Report, Row
from ltkd.report.text_tables import FIDELITY_MARKS, difference_table
from ltkd.results.read import KINDS, NOT_AVAILABLE


def explanations(report: Report) -> list[str]:
    """Explains the numbers to a reader, a paragraph each."""
    notes = [report.table.notes] if report.table.notes else []
    return [*legend(report), *about_differences(report), *named_sources(report), *notes]


def legend(report: Report) -> list[str]:
    """Says what the numbers are and what the marks beside them mean."""
    kind = sentence(KINDS[report.table.accuracy]).removesuffix(".")
    lines = [f"{kind}; mean ± sample standard deviation {averaged_over(report)}."]
    if any(value.summary is None for column in report.columns for row in column.rows for value in row.values.values()):
        lines.append(f"{NOT_AVAILABLE}: no run has that value.")
    rows = [row for column in report.columns for row in column.rows]
    if learned := ", ".join(dict.fromkeys(row.label for row in rows if row.learned_from_validation)):
        lines.append(f"Trained on the images of the validation split too, unlike the other rows: {learned}.")
    if overlapping := ", ".join(dict.fromkeys(row.label for row in rows if row.shares_teachers_in_part)):
        lines.append(
            "Runs of several seeds have some of their teachers in common, so that deviations and intervals are too "
            f"small: {overlapping}."
        )
    fidelities = {row.fidelity for row in rows}
    lines += [f"{mark} {kind}: {FIDELITY[kind]}." for kind, mark in FIDELITY_MARKS.items() if kind in fidelities]
    return lines


def about_correction(report: Report, kind: str) -> str:
    """Says what stands side by side in a table of raw and corrected accuracies."""
    raw, corrected = KINDS["last"], KINDS[kind].removeprefix("accuracy on the test part, last epoch, ")
    return sentence(
        f"{raw}; corrected: the same networks, {corrected.removesuffix(', in %')}; mean ± sample standard deviation "
        f"{averaged_over(report)}"
    )


def named_sources(report: Report) -> list[str]:
    """Names where published values come from, by their numbers."""
    return [f"[{number}] {source}" for number, source in enumerate(report.sources, 1)]


def averaged_over(report: Report) -> str:
    """Names what a mean and a deviation are taken over."""
    if len(report.table.split_seeds) > 1:
        return "over the splits, the runs on a split averaged first: they have its images in common"
    return "over n runs"


def about_overview(report: Report) -> str:
    last = dict.fromkeys(column.groups[-1] for column in report.columns if column.groups)
    return f"Mean accuracy in %, over all classes / in the group {' or '.join(last) or 'that is last'}."


def about_differences(report: Report) -> list[str]:
    """Explains what is compared and how sure it is; empty where nothing is compared."""
    columns = [column for column in report.columns if difference_table(report, column)]
    rows = [row for column in columns for row in column.rows]
    differences = [value.difference for row in rows for value in row.values.values() if value.difference]
    if not differences:
        return []
    several = len(report.table.split_seeds) > 1
    unit = "splits, the seeds on a split averaged" if several else "runs of the same seed"
    return [
        f"Differences are in points, to the baseline with the highest mean in that value, paired by {unit}. In "
        "brackets is Student's 95 % interval of their mean, which holds if differences are normal.",
        *(
            [f"With a single pair there is no interval ({NOT_AVAILABLE})."]
            * any(difference.paired.n < 2 for difference in differences)
        ),
        *_about_choice(columns),
        *_about_teachers(report, columns),
    ]


def _about_choice(columns: list[Column]) -> list[str]:
    """Says that the baseline was chosen, among which rows, and that there are many intervals."""
    lines = []
    left_out = {
        column.label: ", ".join(f"{row.label} ({_about_left_out(row, column)})" for row in column.left_out)
        for column in columns
    }
    named = [f"{label}: {rows}" if label else rows for label, rows in left_out.items() if rows]
    if named:
        few = "for want of runs, or of runs in common with the methods"
        lines.append(f"Left out of the choice of the baseline {few}: {'; '.join(named)}.")
    if any(len(names) > 1 for column in columns for names in column.candidates.values()):
        lines.append(
            "The baseline is the best of several on these very runs, and partly so by chance: differences to it are if "
            "anything too small, and intervals hold less often than said here."
        )
    with_interval = [
        row
        for column in columns
        for row in column.rows
        if any(value.difference and value.difference.paired.interval for value in row.values.values())
    ]
    if len(with_interval) > 1:
        lines.append("Each interval is for itself: among many, some miss by chance.")
    return lines


def _about_left_out(row: Row, column: Column) -> str:
    """Counts its runs, and says where it is above all that the best one was chosen from."""
    higher = []
    for name, labels in column.candidates.items():
        chosen_from = [other.values[name].summary.mean for other in column.rows if other.label in labels]
        own = row.values[name].summary
        if chosen_from and own and own.mean > max(chosen_from):
            higher.append(name)
    return _counted_runs(row.n) + (f"; higher in {', '.join(higher)}" if higher else "")


def _counted_runs(number: int) -> str:
    return f"{number or 'no'} run{'s' * (number != 1)}"


def _about_teachers(report: Report, columns: list[Column]) -> list[str]:
    alone = [column.label for column in columns if len(column.teacher_hashes) == 1]
    if not alone:
        by_row = [row.teacher_hashes for column in columns for row in column.rows]
        if not any(by_row) or max(map(len, by_row)) > 1:
            return []
        return ["All students of a row that have a teacher have the same one, so nothing is said about other teachers."]
    where = "" if len(report.columns) == 1 else " of a column"
    if len(alone) < len(columns):
        where = f" of {'; '.join(alone)}"
    return [f"All students{where} that have a teacher have the same one, so nothing is said about other teachers."]


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
