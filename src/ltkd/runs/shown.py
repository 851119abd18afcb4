"""Rows and settings that a person looks at in W&B: accuracy by class, the bias figure, what runs are filtered by."""

from typing import Any

from ltkd.config.identity import NetworkRun
from ltkd.loop.tracking import Rows
from ltkd.results.result import Result
from ltkd.runs.build import TrainedTeacher


def filters(run: NetworkRun) -> dict[str, Any]:
    """The names of a run beside its settings, each one value: method, pair, data set, factor, hash and cell."""
    names = run.names
    pair = "-".join(filter(None, [names["teacher"], names["student"]]))
    return {
        "method_name": names["method"],
        "pair": pair,
        "dataset_label": names["dataset"],
        "imbalance_factor": run.config.dataset.imbalance_factor,
        "hash": names["hash"],
        "cell": names["cell"],
    }


def per_class_rows(result: Result) -> Rows:
    """Returns a row for each class: its number, name, group, training images, and accuracy on the test part in %."""
    groups = [result["group_names"][group] for group in result["groups"]]
    accuracies = result["accuracy"]["last"]["per_class"]
    columns = [result["class_names"], groups, result["class_counts"], accuracies]
    rows = [[label, *row] for label, row in enumerate(zip(*columns, strict=True))]
    return [["class", "name", "group", "training images", "accuracy in %"], *rows]


def bias_rows(result: Result, teacher: TrainedTeacher | None) -> Rows:
    """Returns a bar for each group and network: the mean probability in % that it gives the group on the test part.

    Beside them stands the group's share of the classes, which an unbiased network gives on a balanced test part.
    """
    shares = {
        name: 100 * result["groups"].count(group) / len(result["groups"])
        for group, name in enumerate(result["group_names"])
    }
    masses = {result["role"]: result["accuracy"]["last"]["group_mass"]}
    if teacher is not None:
        masses = {"teacher": teacher.result["accuracy"]["last"]["group_mass"]} | masses
    named = {"share of the classes": shares} | masses
    bars = [[f"{group}, {network}", mass[group]] for group in shares for network, mass in named.items()]
    return [["group", "mean probability in %"], *(bar for bar in bars if bar[1] is not None)]
