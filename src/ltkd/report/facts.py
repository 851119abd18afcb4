"""Collects the head of a report: data, recipe, seeds, hardware, dates, and who shares a teacher."""

import itertools
from collections.abc import Iterable
from typing import Any

from ltkd.report.entries import Entry
from ltkd.results.code import circumstance_notes, code_notes, commit_label
from ltkd.tables.table import Table, key_of

WITHOUT_EFFECT = ("output_root", "data_root", "device", "run", "cache", "wandb")  # on what a table says


def facts_of(table: Table, finished: list[Entry], overrides: Iterable[str] = ()) -> dict[str, str]:
    """Returns the facts, each said once, however many runs share it."""
    results = [entry.result for entry in finished]

    def all_of(texts: Iterable[str]) -> str:
        return "; ".join(dict.fromkeys(texts)) or "nothing finished yet"

    dates = sorted(result["finished"][:10] for result in results)
    students = {result["hash"]: result for result in results}  # one may stand in several columns
    hours = sum(student["train_seconds"] for student in students.values()) / 3600
    number = f"{len(students)} student{'s' * (len(students) != 1)}"
    changed = [override for override in overrides if key_of(override).partition(".")[0] not in WITHOUT_EFFECT]
    return {
        "data": all_of(data_fact(result) for result in results),
        "recipe": all_of(_recipe_fact(result["identity"]) for result in results),
        **({"changed": f"{' '.join(changed)} (title and notes are those of the table as it is)"} if changed else {}),
        "seeds": _seeds_fact(table, finished),
        "hardware": all_of(result["device"] for result in results),
        "software": all_of(
            f"torch {result['versions']['torch']}, ltkd {result['versions']['ltkd']}" for result in results
        ),
        "commit": all_of(commit_label(result["git"]) for result in results),
        **_mixtures(table, finished),
        "finished": " to ".join(dict.fromkeys(dates[:1] + dates[-1:])) or "nothing finished yet",
        "training time": f"{hours:.2f} hours in {number}" if results else "none yet",
    }


def _mixtures(table: Table, finished: list[Entry]) -> dict[str, str]:
    """Names the cells whose runs are of different code, or may be, and those of different circumstances."""
    cells = [(cell.label, [entry.result for entry in finished if entry.cell is cell]) for cell in table.cells]
    notes = {"code": code_notes(cells), "circumstances": circumstance_notes(cells)}
    return {name: "; ".join(lines) for name, lines in notes.items() if lines}


def data_fact(result: dict[str, Any]) -> str:
    """Describes the data set of a run: its tail, training images and groups."""
    dataset = result["identity"]["dataset"]
    images = dict.fromkeys(result["group_names"], 0)
    classes = dict.fromkeys(result["group_names"], 0)
    for group, count in zip(result["groups"], result["class_counts"], strict=True):
        images[result["group_names"][group]] += count
        classes[result["group_names"][group]] += 1
    as_it_is = "balanced" if len(set(result["class_counts"])) == 1 else "its own class counts"
    shape = (
        as_it_is
        if dataset["imbalance"] == "none"
        else f"{dataset['imbalance']} imbalance, factor {dataset['imbalance_factor']:g}"
    )
    groups = ", ".join(f"{name} {classes[name]} classes with {images[name]:,}" for name in images)
    held_out = dataset["validation_per_class"]
    validation = f", {held_out} per class held out for validation" if held_out else ""
    return f"{dataset['name']}, {shape}: {sum(images.values()):,} training images ({groups}){validation}"


def _recipe_fact(identity: dict[str, Any]) -> str:
    recipe, precision = identity["recipe"], identity["precision"]
    return (
        f"{recipe['name']}, {recipe['epochs']} epochs, batch {recipe['batch_size']}, learning rate "
        f"{recipe['learning_rate']:g} ({recipe['schedule']}), weight decay {recipe['weight_decay']:g}, "
        f"{precision['autocast']}{' with TF32' if precision['tf32'] else ''}"
    )


def _seeds_fact(table: Table, finished: list[Entry]) -> str:
    splits = f"split seed{'s' if len(table.split_seeds) > 1 else ''} {', '.join(map(str, table.split_seeds))}"
    return "; ".join(filter(None, [", ".join(map(str, table.seeds)), _teachers_fact(finished), splits]))


def _teachers_fact(finished: list[Entry]) -> str:
    """Says who shares a teacher: the fewest properties of a run that determine its teacher, by the teachers' hashes."""
    taught = [entry for entry in finished if entry.result.get("teacher_result")]
    if not taught:
        return "no teacher" if finished else ""
    places = [
        {
            "column": tuple(entry.cell.column.items()),
            "split": entry.split_seed,
            "seed": entry.seed,
            "row": tuple(entry.cell.row.items()),
        }
        for entry in taught
    ]
    hashes = [entry.result["teacher_result"]["hash"] for entry in taught]
    for number in range(len(places[0])):
        for known in itertools.combinations(places[0], number):
            chosen = [tuple(place[key] for key in known) for place in places]
            if len(set(zip(chosen, hashes, strict=True))) == len(set(chosen)):
                return f"a teacher for each {' and '.join(known)}" if known else "one teacher for all"
    return "a teacher for each run"
