"""Class groups such as head / medium / tail: five definitions that papers use, one function each."""

import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ltkd.choices import look_up, name_and_settings
from ltkd.errors import UserError

Groups = tuple[np.ndarray, list[str]]
DEFAULT_GROUPS = "rank_thirds"  # stands for every policy in the identity of a run that reads no groups


def rank_thirds(class_counts: np.ndarray) -> Groups:
    """Head, medium, tail: 33 / 34 / 33 % of the classes ranked by their number of images (LTKD).

    A cut inside classes of equal counts moves to their nearer end, so that the order of labels decides nothing; a group
    that is then empty is left out. Step imbalance has head and tail; equal counts are one group, "balanced". Ties that
    truncation leaves in a falling profile (`tie_around`) are cut in the order of the profile.
    """
    num_classes = len(class_counts)
    third = max(33 * num_classes // 100, min(1, num_classes - 1))
    by_count = np.argsort(-class_counts, kind="stable")
    cuts = [_moved_out_of_tie(class_counts, cut) for cut in (third, num_classes - third)]
    sizes = [size for size in np.diff([0, *cuts, num_classes]) if size > 0]
    groups = np.empty(num_classes, dtype=np.int64)
    groups[by_count] = np.repeat(np.arange(len(sizes)), sizes)
    return groups, {1: ["balanced"], 2: ["head", "tail"], 3: ["head", "medium", "tail"]}[len(sizes)]


def tie_around(class_counts: np.ndarray, cut: int) -> tuple[int, int] | None:
    """The ranks [start, end) of the classes of equal counts that a cut before rank `cut` (by count) divides, or None.

    A falling profile, truncated to whole numbers, also has equal counts, but its classes have an order: their labels.
    Such ties are no ties here. They are recognised by counts that fall from label to label and are at most 2 apart on
    both sides of the tie.
    """
    ranked = np.sort(class_counts)[::-1]
    if not 0 < cut < len(ranked) or ranked[cut - 1] != ranked[cut]:
        return None
    start, end = np.flatnonzero(ranked == ranked[cut])[[0, -1]] + [0, 1]
    in_label_order = np.array_equal(ranked, class_counts)
    inside = start > 0 and end < len(ranked)
    if in_label_order and inside and ranked[start - 1] - ranked[cut] <= 2 and ranked[cut] - ranked[end] <= 2:
        return None
    return int(start), int(end)


def _moved_out_of_tie(class_counts: np.ndarray, cut: int) -> int:
    tie = tie_around(class_counts, cut)
    return cut if tie is None else min(reversed(tie), key=lambda end: abs(end - cut))


def many_medium_few(class_counts: np.ndarray) -> Groups:
    """Many > 100 images, medium 20 to 100, few < 20 (Kang et al., arXiv 1910.09217)."""
    return _by_threshold(class_counts > 100, class_counts < 20)


def oltr(class_counts: np.ndarray) -> Groups:
    """Many >= 100 images, medium in between, few <= 20 (Liu et al., OLTR, arXiv 1904.05160)."""
    return _by_threshold(class_counts >= 100, class_counts <= 20)


def _by_threshold(many: np.ndarray, few: np.ndarray) -> Groups:
    return np.where(many, 0, np.where(few, 2, 1)).astype(np.int64), ["many", "medium", "few"]


def ranges(class_counts: np.ndarray, *, boundaries: list[int]) -> Groups:
    """Ranges of labels: each boundary is the first class of the next group; [36, 71] is MiSLAS (arXiv 2104.00466).

    UserError for a boundary inside classes of equal counts, where the counts fall with the labels.
    """
    num_classes = len(class_counts)
    edges = [0, *boundaries, num_classes]
    if not boundaries or any(low >= high for low, high in pairwise(edges)):
        raise UserError(
            f"dataset.groups.boundaries: {boundaries} must rise strictly between 1 and {num_classes - 1} "
            f"for {num_classes} classes"
        )
    if (np.diff(class_counts) <= 0).all():
        for boundary in boundaries:
            tie = tie_around(class_counts, boundary)
            if tie is not None:
                raise UserError(
                    f"dataset.groups.boundaries: {boundary} cuts through classes {tie[0]} .. {tie[1] - 1}, which all "
                    f"have {class_counts[boundary]} images; dataset.groups=rank_thirds makes no such cut, "
                    "{name: mapping} makes groups that have nothing to do with counts"
                )
    groups = np.searchsorted(boundaries, np.arange(num_classes), side="right").astype(np.int64)
    names = ["many", "medium", "few"] if len(boundaries) == 2 else [f"group{i}" for i in range(len(boundaries) + 1)]
    return groups, names


def mapping(class_counts: np.ndarray, *, classes: dict[str, list[int]]) -> Groups:
    """The user's own groups: name -> class labels, every class in exactly one group."""
    groups = np.full(len(class_counts), -1, dtype=np.int64)
    names = list(classes)
    if "all" in names:
        raise UserError(
            "dataset.groups.classes: no group can be called 'all', which stands for all classes in every table"
        )
    for group, name in enumerate(names):
        for label in classes[name]:
            if not 0 <= label < len(groups):
                raise UserError(f"dataset.groups.classes.{name}: class {label} is not among 0 .. {len(groups) - 1}")
            if groups[label] >= 0:
                raise UserError(
                    f"dataset.groups.classes.{name}: class {label} is already in {names[groups[label]]!r}; "
                    "every class belongs to exactly one group"
                )
            groups[label] = group
    if (groups < 0).any():
        raise UserError(f"dataset.groups.classes: class {int(np.argmin(groups))} is in no group")
    return groups, names


_POLICIES: dict[str, Callable[..., Groups]] = {
    policy.__name__: policy for policy in (rank_thirds, many_medium_few, oltr, ranges, mapping)
}


def group_policy(name: str) -> Callable[..., Groups]:
    """The policy of that name; its keyword-only parameters are what the configuration may set."""
    return look_up("dataset.groups", name, _POLICIES)


def make_groups(choice: str | Mapping[str, Any], class_counts: np.ndarray) -> Groups:
    """Group id [C] (int64) of each class and the names of the groups.

    `choice` is a policy's name, or {name: ..., and its arguments}; `class_counts` [C] are images per class. A name
    stays in the list when no class falls into its group, so that reports can say "n/a".
    """
    name, arguments = name_and_settings(choice)
    policy = group_policy(name)
    wanted = list(inspect.signature(policy).parameters)[1:]
    if sorted(arguments) != sorted(wanted):
        raise UserError(
            f"dataset.groups: {name} takes {', '.join(wanted) or 'no arguments'}; got {', '.join(arguments) or 'none'}"
        )
    return policy(np.asarray(class_counts), **arguments)
