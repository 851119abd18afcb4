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
            for name, one in row.values.items():
                line |= {f"{name}{key}": value for key, value in _numbers(one).items()}
                corrected = {kind: row.corrected[kind].summaries[name] for kind in row.corrected}
                line |= {f"{name} {kind}": one and one.mean for kind, one in corrected.items()}
            lines.append(line)
    fields = list(dict.fromkeys(key for line in lines for key in line)) or ["n"]
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=fields)
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _numbers(one: CellValue) -> dict[str, object]:
    """Differences to the best baseline and to each: one that is chosen before the runs has honest intervals."""
    chosen = one.difference
    numbers = {
        "": one.summary.mean if one.summary else None,
        " std": one.summary.deviation if one.summary else None,
        " against": chosen and chosen.against,
        **_of_difference(chosen and chosen.paired),
        " published": " ".join(str(value) for value, _ in one.published) or None,
    }
    for baseline, paired in one.to_each.items():
        numbers |= {f"{key} to {baseline}": value for key, value in _of_difference(paired).items()}
    return numbers


def _of_difference(paired: PairedDifference | None) -> dict[str, object]:
    low, high = (paired and paired.interval) or (None, None)
    mean, pairs = (paired.mean, paired.n) if paired else (None, None)
    return {" difference": mean, " pairs": pairs, " low": low, " high": high}
