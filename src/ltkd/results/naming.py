"""Names the settings in which the rows of a table differ, so that no two different rows look alike."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltkd.results.read import flatten

SECTIONS = ("dataset", "recipe", "precision", "teacher")  # of an identity; what lies deeper is one value
DEFAULT = "default"  # stands for a setting that an identity leaves out
GROUPS = "dataset.groups"
LONGEST = 60  # characters of a value that is written out


def outside_of_method(identity: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """All settings of a run but those of its method and its seeds, {"recipe.epochs": "60", ...}.

    Names of networks, which tables have in columns of their own, are left out, and so are the further teachers, which
    follow from the method's settings. Groups name what a teacher was reported for, and its student's are named.
    """
    named: dict[str, str] = {}
    for key, value in identity.items():
        if key in SECTIONS and isinstance(value, Mapping):
            named |= outside_of_method(value, f"{prefix}{key}.")
        elif key not in ("seed", "method", "further_teachers") and f"{prefix}{key}" not in (
            "name",
            "teacher",
            "teacher.name",
            "dataset.name",
            "teacher.dataset.name",
            "teacher.dataset.groups",
        ):
            named[f"{prefix}{key}"] = shown(value)
    return named


def of_method(identity: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a run's method, {"temperature": "4", ...}."""
    settings = flatten(identity.get("method") or {})
    return {key: shown(value) for key, value in settings.items() if key != "name"}


def shown(value: Any) -> str:
    """A value as tables have it: null, 0.1, ldam(max_margin=0.5); what is too long, and any hash, by eight digits."""
    if value is None:
        return "null"
    if isinstance(value, Mapping) and "name" in value:
        settings = ", ".join(
            f"{key}={shown(setting)}" for key, setting in value.items() if key not in ("name", "classes")
        )
        classes = f"classes {_digest(value['classes'])}" if "classes" in value else ""
        inside = ", ".join(filter(None, [settings, classes]))
        return f"{value['name']}({inside})" if inside else str(value["name"])
    text = value if isinstance(value, str) else json.dumps(value).replace('"', "")
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:8]
    return text if len(text) <= LONGEST else _digest(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def differences(rows: Sequence[Mapping[str, str]], *, absent: str | None = None) -> tuple[list[list[str]], list[str]]:
    """Returns "key=value" of each row where it differs from most, and of the keys so named the value that most have.

    A value that most rows have goes without saying in a row: the rows of an ablation show what was changed. absent:
    the value of a key that a row lacks; None where such a row has nothing to say of it.
    """
    named: list[list[str]] = [[] for _ in rows]
    common_ones = []
    for key in sorted({key for row in rows for key in row}):
        # rows without a teacher have none of its settings, and groups are none of most trainings'
        concerned = [index for index, row in enumerate(rows) if _concerns(row, key)]
        values = {index: rows[index].get(key, absent) for index in concerned}
        shared = key.removeprefix("teacher.")
        if shared != key and all(rows[index].get(key) == rows[index].get(shared) for index in concerned):
            continue  # what student and teacher share (data, recipe) is said once
        (common, count), *rarer = Counter(values.values()).most_common()
        if not rarer:
            continue
        is_common = count > len(concerned) / 2
        if is_common and common is not None:
            common_ones.append(f"{key}={common}")
        for index, value in values.items():
            if value is not None and not (is_common and value == common):
                named[index].append(f"{key}={value}")
    return named, common_ones


def _concerns(row: Mapping[str, str], key: str) -> bool:
    if key == GROUPS:
        return key in row
    return not key.startswith("teacher.") or any(other_key.startswith("teacher.") for other_key in row)


def common_note(label: str, common: Iterable[str]) -> list[str]:
    """Notes the values that the rows of a data set have where they do not say otherwise."""
    values = " ".join(common)
    return [f"{label}, where a row does not say otherwise: {values}"] if values else []
