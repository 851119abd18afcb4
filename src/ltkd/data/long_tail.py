"""The long-tailed split: how many images each class keeps, which ones, and which are set aside for validation."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltkd.data.groups import make_groups
from ltkd.errors import UserError, first_few, unknown_name

_log = logging.getLogger(__name__)

IMBALANCES = ("exponential", "step", "none")
MANIFEST_SCHEMA = 1


def class_counts(imbalance: str, factor: float, n_max: int, num_classes: int) -> np.ndarray:
    """Images per class [C] (int64) of a long tail over classes in label order (LDAM-DRW, arXiv 1906.07413).

    exponential: int(n_max * f^(i / (C - 1))) with f = 1 / factor; step: n_max in the first half of the classes,
    int(n_max * f) in the second; none: n_max everywhere. The products are truncated, as in the field's lists. UserError
    when a class would get none.
    """
    if imbalance not in IMBALANCES:
        raise unknown_name("dataset.imbalance", imbalance, IMBALANCES)
    if factor < 1:
        raise UserError(f"dataset.imbalance_factor: {factor:g} must be at least 1 (largest class / smallest class)")
    if num_classes < 2:
        raise UserError(f"dataset.num_classes: {num_classes} must be at least 2")
    counts = _truncated_counts(imbalance, factor, n_max, num_classes)
    if min(counts) < 1:
        # Not always n_max itself: 49 * (1 / 49) is below 1 in floating point.
        works = (f for f in range(n_max, 0, -1) if min(_truncated_counts(imbalance, f, n_max, num_classes)) >= 1)
        raise UserError(
            f"dataset.imbalance_factor: with {factor:g} class {counts.index(0)} would get 0 of its {n_max} images; "
            f"the largest whole factor that works is {next(works, 'none')}"
        )
    return np.array(counts, dtype=np.int64)


def _truncated_counts(imbalance: str, factor: float, n_max: int, num_classes: int) -> list[int]:
    f = 1 / factor
    if imbalance == "exponential":
        return [int(n_max * f ** (i / (num_classes - 1))) for i in range(num_classes)]
    if imbalance == "step":
        return [n_max if i < num_classes // 2 else int(n_max * f) for i in range(num_classes)]
    return [n_max] * num_classes


@dataclass(frozen=True)
class LongTailSplit:
    """The rows of the full training set that are trained on and that validate, and the groups of the classes.

    Arrays are int64; C classes. Groups are made from the counts *before* the validation images are taken, so that
    tuning (with validation) and reporting (without) speak of the same groups.
    """

    indices: np.ndarray  # [N] rows to train on, class after class
    class_counts: np.ndarray  # [C] images per class in `indices`
    groups: np.ndarray  # [C] group id of each class
    group_names: list[str]
    validation_indices: np.ndarray  # [V] rows held out for validation, class after class; may be empty
    validation_from_left_out: np.ndarray  # [C] of them, those that the long tail leaves out anyway
    validation_from_training: np.ndarray  # [C] of them, those that training had to give up

    @property
    def sha256(self) -> str:
        """The hash of `indices` as little-endian int64."""
        return indices_sha256(self.indices)

    @property
    def canonical_counts(self) -> np.ndarray:
        """Images per class [C] before any was given up for validation."""
        return self.class_counts + self.validation_from_training

    def to_manifest(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The split as plain JSON values; `settings` are the data set's, with its `name`."""
        return {
            "schema": MANIFEST_SCHEMA,
            "dataset": settings["name"],
            "settings": dict(settings),
            "num_classes": len(self.class_counts),
            "class_counts": self.class_counts.tolist(),
            "groups": self.groups.tolist(),
            "group_names": list(self.group_names),
            "sha256": self.sha256,
            "validation_sha256": indices_sha256(self.validation_indices),
            "validation_from_left_out": self.validation_from_left_out.tolist(),
            "validation_from_training": self.validation_from_training.tolist(),
        }


def indices_sha256(indices: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(indices, dtype="<i8").tobytes()).hexdigest()


def make_split(
    labels: np.ndarray,
    *,
    num_classes: int,
    imbalance: str,
    imbalance_factor: float,
    split_seed: int,
    validation_per_class: int,
    groups: str | Mapping[str, Any],
    balanced: bool = True,
) -> LongTailSplit:
    """Cuts the long tail out of the labels [n] of a full training set.

    One generator, seeded with `split_seed`, shuffles each class's rows in the order of the labels; the class keeps the
    first n_i. Validation takes `validation_per_class` rows of every class: those left out first, in shuffled order, and
    only the shortage from the end of the rows that the class keeps. A class of one image keeps it for training and has
    none for validation; a warning names such classes. NumPy's global state is neither read nor changed.
    Where the data is not `balanced`, a class with fewer than n_i images keeps all; one line says how many classes did.
    UserError for settings that the data cannot give.
    """
    labels = np.asarray(labels)
    present = np.unique(labels)
    if not np.array_equal(present, np.arange(num_classes)):
        raise UserError(
            f"dataset.num_classes: {num_classes} classes are asked for, but the data has {len(present)} "
            f"(labels {present.min()} .. {present.max()})"
        )
    available = np.bincount(labels, minlength=num_classes)
    n_max = len(labels) // num_classes
    counts = class_counts(imbalance, imbalance_factor, n_max, num_classes)
    if imbalance == "none":
        counts = available
    if not balanced and (counts > available).any():
        short = f"{(counts > available).sum()} of {num_classes} classes have fewer images than n_i and keep all"
        _log.info("dataset.imbalance=%s with n_max = %d: %s", imbalance, n_max, short)
        counts = np.minimum(counts, available)
    if (counts > available).any():
        label = int(np.argmax(counts > available))
        raise UserError(
            f"dataset.imbalance: {imbalance} asks for {counts[label]} images of class {label}, which has only "
            f"{available[label]}; the data is not balanced to begin with, use imbalance=none"
        )
    held_out = np.where(available > 1, validation_per_class, 0)
    if (held_out >= available).any():
        least = available[available > 1].min()
        raise UserError(
            f"dataset.validation_per_class: {validation_per_class} leaves class {int(np.argmax(available == least))} "
            f"nothing to train on (it has {least} images); at most {least - 1}"
        )
    if validation_per_class and (single := np.flatnonzero(available == 1)).size:
        _log.warning("%d classes have one image and none for validation: %s", len(single), first_few(single.tolist()))

    from_training = np.maximum(held_out - (available - counts), 0)
    generator = np.random.RandomState(split_seed)  # the legacy stream: the published lists were drawn with it
    selected, validation = [], []
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        generator.shuffle(rows)
        num_kept = counts[label] - from_training[label]
        left_out = rows[counts[label] :][: held_out[label] - from_training[label]]
        selected.append(rows[:num_kept])
        validation.append(np.concatenate([left_out, rows[num_kept : counts[label]]]))
    group_of_class, group_names = make_groups(groups, counts)
    return LongTailSplit(
        indices=np.concatenate(selected).astype(np.int64),
        class_counts=counts - from_training,
        groups=group_of_class,
        group_names=group_names,
        validation_indices=np.concatenate(validation).astype(np.int64),
        validation_from_left_out=held_out - from_training,
        validation_from_training=from_training,
    )
