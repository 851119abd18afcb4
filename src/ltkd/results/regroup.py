"""Reports finished runs for other groups of classes, from their accuracy class by class. Nothing is trained again."""

import math
from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any

import yaml

from ltkd.errors import UserError
from ltkd.files import read_json
from ltkd.results.files import RunFiles

Regroup = Callable[[dict[str, Any], RunFiles], dict[str, Any]]


def regroup_by(policy: str) -> Regroup:
    """Returns the function that gives a run's result in groups of `policy`: a name, or YAML as in dataset.groups.

    The groups are made of the class counts in the run's manifest, as its split was. Accuracies per group are means of
    their classes, which is what they are on images that are balanced; on others they are None.
    """
    from ltkd.data.groups import make_groups  # here: with torch, which no other table needs

    try:
        choice = yaml.safe_load(policy)
    except yaml.YAMLError as error:
        raise UserError(f"groups: {policy!r} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(choice, str | dict):
        raise UserError(f"groups: {policy!r} is no policy; a name, or {{name: ranges, boundaries: [36, 71]}}")
    make_groups(choice, range(1000, 0, -1)) if isinstance(choice, str) else None  # an unknown name: before any run

    def regroup(run: dict[str, Any], files: RunFiles) -> dict[str, Any]:
        counts = run["class_counts"]
        if files.manifest.exists():
            taken = read_json(files.manifest).get("validation_from_training", [0] * len(counts))
            counts = [count + more for count, more in zip(counts, taken, strict=True)]
        groups, names = make_groups(choice, counts)
        groups = groups.tolist()
        changed = {"groups": groups, "group_names": names, "group_policy": choice}
        return _with_groups(run, groups, names) | changed

    return regroup


def _with_groups(value: Any, groups: list[int], names: list[str]) -> Any:
    """Replaces the accuracies per group wherever there are accuracies per class."""
    if isinstance(value, list):
        return [_with_groups(one, groups, names) for one in value]
    if not isinstance(value, Mapping):
        return value
    changed = {key: _with_groups(one, groups, names) for key, one in value.items()}
    if "per_class" in value and "per_group" in value:
        changed["per_group"] = _per_group(value["all"], value["per_class"], groups, names)
    return changed


def _per_group(
    accuracy: float, per_class: list[float | None], groups: list[int], names: list[str]
) -> dict[str, float | None]:
    there = [one for one in per_class if one is not None]
    balanced = math.isclose(mean(there), accuracy, abs_tol=1e-6)  # images counted alike, and classes counted alike
    members = [
        [one for one, of in zip(per_class, groups, strict=True) if of == group and one is not None]
        for group in range(len(names))
    ]
    return {name: mean(own) if own and balanced else None for name, own in zip(names, members, strict=True)}
