"""Reports finished runs for other groups of classes, from their accuracy class by class. Nothing is trained again."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any

import yaml

from ltkd.errors import UserError
from ltkd.files import read_json
from ltkd.results.files import RunFiles

Policy = str | dict[str, Any]  # as in dataset.groups
Regroup = Callable[[dict[str, Any], RunFiles], dict[str, Any]]


def regroup_by(policy: str) -> Regroup:
    """Returns the function that gives a run's result in groups of `policy`: a name, or YAML as in dataset.groups."""
    from ltkd.data.groups import make_groups  # here: with torch, which no other table needs

    try:
        choice = yaml.safe_load(policy)
    except yaml.YAMLError as error:
        raise UserError(f"groups: {policy!r} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(choice, str | dict):
        raise UserError(f"groups: {policy!r} is no policy; a name, or {{name: ranges, boundaries: [36, 71]}}")
    make_groups(choice, range(1000, 0, -1)) if isinstance(choice, str) else None  # an unknown name: before any run
    return partial(in_groups, policy=choice)


def policy_of(run: Mapping[str, Any]) -> Policy | None:
    """The policy of the groups that a result's figures are of; older results have that of their identity."""
    return run.get("group_policy", (run["identity"].get("dataset") or {}).get("groups"))


def in_groups(run: dict[str, Any], files: RunFiles, policy: Policy) -> dict[str, Any]:
    """Returns a result in groups of `policy`, which are made of the class counts in its manifest, as its split was.

    Accuracies per group are those of their classes' images. What a result does not have class by class is None:
    confusion and mass of groups, accuracies under attack and, of older results, accuracies on images that are not
    balanced.
    """
    from ltkd.data.groups import make_groups

    counts = run["class_counts"]
    if files.manifest.exists():
        from_training = read_json(files.manifest).get("validation_from_training", [0] * len(counts))
        counts = [count + held_out for count, held_out in zip(counts, from_training, strict=True)]
    groups, names = make_groups(policy, counts)
    groups, with_policy = groups.tolist(), {"group_policy": policy}
    if (groups, names) == (run["groups"], run["group_names"]):
        return run | with_policy
    images = {"test": run.get("test_counts"), "validation": run.get("validation_counts")}
    return _Regrouping(groups, names, images).of(run) | with_policy | {"groups": groups, "group_names": names}


@dataclass(frozen=True)
class _Regrouping:
    groups: list[int]  # [C]
    names: list[str]
    images: dict[str, list[int] | None]  # [C] of each part; None where that is not known

    def of(self, value: Any, part: str = "test") -> Any:
        """Replaces what there is by group, wherever it stands."""
        if isinstance(value, list):
            return [self.of(entry, part) for entry in value]
        if not isinstance(value, Mapping):
            return value
        changed = {key: self.of(entry, key if key in self.images else part) for key, entry in value.items()}
        if "per_group" in value:
            changed["per_group"] = self._accuracies(value, self.images[part])
        if "group_mass" in value:
            changed["group_mass"] = dict.fromkeys(self.names)
        if "group_confusion" in value:
            changed["group_confusion"] = [None] * len(self.names)
        return changed

    def _accuracies(self, record: Mapping[str, Any], images: list[int] | None) -> dict[str, float | None]:
        per_class = record.get("per_class")
        if per_class is None:
            return dict.fromkeys(self.names)
        members: list[list[int]] = [[] for _ in self.names]
        for label, (group, accuracy) in enumerate(zip(self.groups, per_class, strict=True)):
            if accuracy is not None and (images is None or images[label]):
                members[group].append(label)
        if images is not None:
            right = [round((accuracy or 0) * count / 100) for accuracy, count in zip(per_class, images, strict=True)]
            shares = [
                100 * sum(right[label] for label in labels) / sum(images[label] for label in labels) if labels else None
                for labels in members
            ]
        elif math.isclose(
            mean(accuracy for accuracy in per_class if accuracy is not None), record["all"], abs_tol=1e-6
        ):
            # each class has as many images
            shares = [mean(per_class[label] for label in labels) if labels else None for labels in members]
        else:
            shares = [None] * len(members)
        return dict(zip(self.names, shares, strict=True))
