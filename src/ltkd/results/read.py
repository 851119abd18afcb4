"""Reads one run's result.json and shows it as a table. Knows no torch, so that it starts at once."""

import math
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ltkd.errors import UserError
from ltkd.files import read_json
from ltkd.results.corrections import evened_out_by
from ltkd.results.result import Attacked, Corrected, Evaluated, Result, TeacherResult, UnderAttack

KINDS = {
    "last": "accuracy on the test part after the last epoch, in %",
    "validation": "accuracy on the VALIDATION split after the last epoch, in %: what settings are chosen by",
    "selected": "accuracy on the test part in the epoch that the validation split selects, in %",
    "logit_adjusted": "accuracy on the test part, last epoch, logits adjusted post hoc (arXiv 2007.07314), in %",
    "tau_normalized": "accuracy on the test part, last epoch, classifier tau-normalised (arXiv 1910.09217), in %",
    "corrected_once": "accuracy on the test part, last epoch, each network corrected once for the class counts: by its "
    "training or, where that left the imbalance, by adjusting its logits post hoc (arXiv 2007.07314), in %",
    "best": "BEST epoch ON THE TEST PART, in %: only for comparison with papers that report it",
}
POST_HOC = ("logit_adjusted", "tau_normalized")  # kinds that correct the finished network
CORRECTED = (*POST_HOC, "corrected_once")  # those of which some networks are corrected
NOT_AVAILABLE = "n/a"
MEAN = "mean per class"  # beside the accuracy per image, on images that are not balanced
SCHEMA_VERSION = 1  # of result.json; raised when a key changes its meaning or goes


def accuracy_record(run: Result | TeacherResult, kind: str) -> Evaluated | None:
    """Returns the accuracies of that kind (KINDS) in a result; None where it has none."""
    if kind == "corrected_once":
        kind = "last" if evened_out_by(run["identity"]) else "logit_adjusted"
    if kind in POST_HOC:
        corrected = correction(run, kind)
        return corrected and corrected["test"]
    return run["accuracy"]["last"].get("validation") if kind == "validation" else run["accuracy"][kind]


def correction(run: Result | TeacherResult, kind: str) -> Corrected | None:
    """Returns a correction after training (CORRECTED): tau, chosen_by, test; None where the run has none."""
    if kind == "corrected_once":
        kind = "" if evened_out_by(run["identity"]) else "logit_adjusted"
    return (run.get("post_hoc") or {}).get(kind)


def accuracy(run: Result | TeacherResult, kind: str, group: str | None) -> float | None:
    """The accuracy over all images (group None), the MEAN of the classes or in a group; in %, None where there is none.

    Older results have no MEAN.
    """
    record = accuracy_record(run, kind)
    if record is None:
        return None
    if group == MEAN:
        return record.get("mean_per_class")
    return record["all"] if group is None else record["per_group"].get(group)


def is_unbalanced(record: Evaluated | Attacked | None) -> bool:
    """True of accuracies that differ over images and over classes: the images are not balanced."""
    mean = (record or {}).get("mean_per_class")
    return mean is not None and not math.isclose(mean, record["all"], rel_tol=1e-9, abs_tol=1e-9)


def how_it_ended(path: Path) -> str:
    """Describes a run without a result in one line, from its status.json."""
    try:
        status = read_json(path)
        reason = f" ({status['error'].splitlines()[0]})" if status["error"] else ""
        ended = "running or killed" if status["status"] == "running" else status["status"]
        return f"{ended}: {status['label']} seed {status['seed']}{reason}  [{path.parent}]"
    except (UserError, KeyError, TypeError) as error:
        return f"unreadable: {path} ({error})"


def read_result(path: Path) -> Result:
    """Reads the file. UserError, naming it, when it is damaged or not of the kind that this version writes."""
    return check_version(read_json(path), path)


def check_version(result: Any, path: Path) -> Result:
    """The result itself. UserError, naming the file that it is from, when this version does not write such results."""
    if not isinstance(result, dict) or result.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path}: no result.json of schema version {SCHEMA_VERSION}; remove it and run again")
    return result


def teacher_of(run: Result) -> dict[str, Any]:
    """The teacher as a run of its own, as far as a table needs it, from what its student's result says of it."""
    names = {"dataset": run["dataset"], "teacher": run["teacher"], "student": None, "method": "teacher"}
    return run["teacher_result"] | names | {"group_names": run["group_names"], "identity": run["identity"]["teacher"]}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings to one, {"method.name": "kd", ...}, without keys called seed."""
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}{key}.").items()}
    return {prefix[:-1]: value} if prefix[:-1].rpartition(".")[2] != "seed" else {}


def cell_text(value: float | None, deviation: float | None) -> str:
    """Writes mean ± deviation as in every table: 42.00 ± 2.65, 42.00, n/a."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value:.2f}" if deviation is None else f"{value:.2f} ± {deviation:.2f}"


def run_table(result: Result) -> str:
    """Summarises a finished run: teacher and student, all and per group, and where the results lie."""
    groups = result["group_names"]
    attacked = result.get("robustness") or {}
    networks = {"teacher": result["teacher_result"], "student": result}
    identities = {"teacher": result["identity"]["teacher"], "student": result["identity"]}
    records = {
        role: _records(network, identities[role], attacked.get(role))
        for role, network in networks.items()
        if network is not None
    }
    mean = [MEAN] * any(is_unbalanced(record) for of_one in records.values() for record in of_one.values())
    rows = []
    for role, of_one in records.items():
        method = result["method"] if role == "student" else ""
        rows += _rows(f"{role} {result[role]}", method, of_one, groups, with_mean=bool(mean))
    images = dict.fromkeys(groups, 0)
    for group, count in zip(result["groups"], result["class_counts"], strict=True):
        images[groups[group]] += count
    headers = ["last epoch, accuracy in %", "method", "all", *mean, *groups]
    rows.append(["training images", "", sum(images.values()), *("" for _ in mean), *images.values()])
    table = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
    return f"\n{table}\n\nresult: {result['directory']}"


def _records(
    result: Result | TeacherResult, identity: dict[str, Any], attacked: UnderAttack | None
) -> dict[str, Evaluated | Attacked]:
    """Returns the accuracies that there are: on the test part, before a second stage, corrected after a training that
    left the imbalance, on validation, under attack."""
    last, before, by = result["accuracy"]["last"], result.get("before_retraining"), evened_out_by(identity)
    records = {f", corrected by {by}" if by else "": last} | ({", before retraining": before["last"]} if before else {})
    if not by and (corrected := correction(result, "logit_adjusted")):
        records[f", logits adjusted (tau {corrected['tau']:g}, {corrected['chosen_by']})"] = corrected["test"]
    records |= {", on validation": last["validation"]} if "validation" in last else {}
    return records | {f", under {kind.upper()}": attacked[kind] for kind in ("fgsm", "pgd") if attacked}


def _rows(
    name: str, method: str, records: dict[str, Evaluated | Attacked], groups: list[str], *, with_mean: bool
) -> list[list[str]]:
    return [
        [f"{name}{what}", method, cell_text(record["all"], None)]
        + [cell_text(record.get("mean_per_class"), None)] * with_mean
        + [cell_text(record["per_group"][group], None) for group in groups]
        for what, record in records.items()
    ]
