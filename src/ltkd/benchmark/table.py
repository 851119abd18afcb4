"""Writes measurements as a table and as JSON."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from tabulate import tabulate

from ltkd.benchmark.measure import Measurement
from ltkd.config.schema import Config
from ltkd.loop.checkpoint import SHARE_OF_THE_TIME
from ltkd.machine import device_name, resolve_device


def markdown(title: str, rows: Sequence[Measurement], config: Config, num_views: int, num_train: int) -> str:
    """Writes the table, ratios to its first row; below it the cost of filling the teacher cache."""
    first = rows[0]
    body = [
        [
            row.name,
            f"{row.images_per_second:,.0f}",
            f"{row.images_per_second / first.images_per_second:.2f}",
            f"{row.milliseconds_per_step:.2f}",
            f"{100 * row.share_of_peak:.1f} %",
            f"{row.gigabytes:.2f}",
        ]
        for row in rows
    ]
    headers = ["", "images/s", f"x {first.name}", "ms/step", "of peak", "GB"]
    right = ["left", *["right"] * 5]
    lines = [title, "", tabulate(body, headers=headers, tablefmt="github", colalign=right, disable_numparse=True), ""]
    peaks = sorted(row.peak_operations / 1e9 for row in rows)
    operations = ", ".join(f"{row.operations_per_image / 1e6:,.1f} M ({row.name})" for row in (first, rows[-1]))
    lines.append(
        f"Medians. Peak: {peaks[0]:,.0f} to {peaks[-1]:,.0f} GFLOP/s, of matrix products in the row's number format. "
        f"Floating-point operations per image: {operations}."
    )
    lines += _cache_cost(rows, num_views, num_train)
    lines += _between_epochs(rows, config, num_train)
    return "\n".join(lines)


def _cache_cost(rows: Sequence[Measurement], num_views: int, num_train: int) -> list[str]:
    """Says what filling the cache costs, against the row before, which has the same features but the cache."""
    lines = []
    for before, row in itertools.pairwise(rows):
        if row.fill_images_per_second is None or before.fill_images_per_second is not None:
            continue
        fill = num_views * num_train / row.fill_images_per_second
        saved = num_train / before.images_per_second - num_train / row.images_per_second
        entries = f"{num_train:,} images x {num_views} views"
        lines += [
            "",
            f"Teacher cache: {row.fill_images_per_second:,.0f} views/s; all of them ({entries}) in {fill:,.0f} s.",
        ]
        if saved > 0:
            lines[-1] += (
                f" An epoch takes {saved:.1f} s less with it: filled up front it has paid after {fill / saved:,.0f} "
                "epochs of all runs that share the teacher. Filled lazily it costs what the live teacher does."
            )
    return lines


def _between_epochs(rows: Sequence[Measurement], config: Config, num_train: int) -> list[str]:
    """Says what the fastest single run spends beside its steps."""
    alone = [row for row in rows if row.between_epochs is not None]
    if not alone:
        return []
    row = max(alone, key=lambda row: row.images_per_second)
    seconds, rhythm, epoch = row.between_epochs, config.run.evaluate_every, num_train / row.images_per_second
    beside = {"evaluation": seconds["evaluation"] / rhythm, "saving": seconds["saving"], "logging": seconds["logging"]}
    beside["saving"] = min(beside["saving"], SHARE_OF_THE_TIME * epoch)
    share, most = sum(beside.values()) / (epoch + sum(beside.values())), f"{100 * SHARE_OF_THE_TIME:g} %"
    return [
        "",
        f"Beside the steps ({row.name}; an epoch's take {epoch:.2f} s): an evaluation {seconds['evaluation']:.3f} s, "
        f"every {rhythm} epochs; saving {seconds['saving']:.3f} s, for at most {most} of the time; a line of "
        f"metrics {seconds['logging']:.4f} s (without W&B). Together {100 * share:.1f} % of a run.",
    ]


def as_json(
    rows: Sequence[Measurement], config: Config, overrides: Sequence[str], steps: int, rounds: int
) -> dict[str, Any]:
    name = device_name(resolve_device(config.device))
    return {
        "overrides": list(overrides),
        "device": name,
        "torch": torch.__version__,
        "steps": steps,
        "rounds": rounds,
        "teacher": config.teacher.name,
        "student": config.student.name,
        "method": config.method_name,
        "rows": [asdict(row) | {"share_of_peak": row.share_of_peak} for row in rows],
    }
