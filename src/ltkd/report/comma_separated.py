"""A report as CSV, unrounded."""

import csv
import io

from ltkd.report.content import CellValue, Report
from ltkd.results.statistics import PairedDifference


def comma_separated(report: Report) -> str:
    """One line per row of each column, unrounded: n, seeds, and of each figure all that is known."""
    lines = []
    for column in report.columns:
        for row in column.rows:
            line = {**column.names, **row.names, "role": row.role, "accuracy": report.table.accuracy, "n": row.n}
            line["splits"] = row.splits
            line["runs"] = " ".join(f"{entry.split_seed}/{entry.seed}" for entry in row.entries)  # split seed / seed
            if row.corrected:
                line["second correction after"] = next(iter(row.corrected.values())).after
            for name, cell_value in row.values.items():
                line |= {f"{name}{key}": value for key, value in _numbers(cell_value).items()}
                corrected = {kind: row.corrected[kind].summaries[name] for kind in row.corrected}
                line |= {f"{name} {kind}": summary and summary.mean for kind, summary in corrected.items()}
            lines.append(line)
    fields = list(dict.fromkeys(key for line in lines for key in line)) or ["n"]
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=fields)
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _numbers(cell_value: CellValue) -> dict[str, object]:
    """Differences to the best baseline and to each: one that is chosen before the runs has honest intervals."""
    chosen = cell_value.difference
    numbers = {
        "": cell_value.summary.mean if cell_value.summary else None,
        " std": cell_value.summary.deviation if cell_value.summary else None,
        " against": chosen and chosen.against,
        **_of_difference(chosen and chosen.paired),
        " published": " ".join(str(value) for value, _ in cell_value.published) or None,
    }
    for baseline, paired in cell_value.to_each.items():
        numbers |= {f"{key} to {baseline}": value for key, value in _of_difference(paired).items()}
    return numbers


def _of_difference(paired: PairedDifference | None) -> dict[str, object]:
    low, high = (paired and paired.interval) or (None, None)
    mean, pairs = (paired.mean, paired.n) if paired else (None, None)
    return {" difference": mean, " pairs": pairs, " low": low, " high": high}
