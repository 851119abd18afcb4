"""Checks of a teacher from a file, before anything is trained with it."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ltkd.config.schema import Teacher
from ltkd.data import load_split
from ltkd.data.sources import PACK
from ltkd.errors import UserError
from ltkd.files import read_json
from ltkd.methods import method_class
from ltkd.models import check_predictions
from ltkd.results.files import RunFiles
from ltkd.setup import Setup, predict

logger = logging.getLogger(__name__)

CUT = ("imbalance", "imbalance_factor", "split_seed", "validation_per_class")  # settings that decide on the rows
INPUT = ("mean", "std", "image_size")
OTHER_SHARE = 2  # of a class among the images, from which on a prior is called another one: images held out change less


def check_given(setup: Setup, model: nn.Module, teacher: Teacher) -> None:
    """Refuses a teacher that does not know the training images; warns of one that knows the validation's.

    A file that lies in a run's folder has a manifest beside it, which tells what it was trained on; of others it is
    not known.
    """
    checkpoint = teacher.checkpoint
    logits = torch.cat(
        [predict(setup, model, batch.images).logits.float() for batch in setup.train.evaluation_batches()]
    )
    check_predictions(logits, setup.train.labels, setup.data.class_names, f"teacher.checkpoint: {checkpoint}")
    files = RunFiles(Path(checkpoint).parent)
    manifest = read_json(files.manifest) if files.manifest.exists() else None
    if manifest is not None:
        _warn_of_other_input(setup, manifest, teacher)
        _warn_of_another_prior(setup, manifest, teacher)
    if files.result.exists():
        _warn_of_a_correction(setup, read_json(files.result), teacher)
    if setup.validation is None:
        return
    seen, size = None if manifest is None else _validation_images_seen(setup, manifest), len(setup.validation)
    if seen is None:
        message = (
            "teacher.checkpoint: %s may have been trained on the %d validation images (unknown for a file of weights)"
        )
        logger.warning(f"{message}; what is chosen on them then favours this teacher", checkpoint, size)
    elif seen:
        message = "teacher.checkpoint: %s was trained on %d of the %d validation images"
        logger.warning(f"{message}; what is chosen on them favours this teacher", checkpoint, seen, size)


def _warn_of_a_correction(setup: Setup, result: dict[str, Any], teacher: Teacher) -> None:
    method, by = setup.config.method_name, result.get("evened_out_by")
    if by and method_class(method).made_for.get("teacher.task_loss") == teacher.task_loss == "ce":
        logger.warning(
            "teacher.checkpoint: %s was trained with %s, which evened the classes out; method=%s does so once more",
            teacher.checkpoint,
            by,
            method,
        )


def _warn_of_another_prior(setup: Setup, manifest: dict[str, Any], teacher: Teacher) -> None:
    """Warns where the method takes this data's class frequencies out of the logits of a teacher that knows others."""
    method, own = setup.config.method_name, setup.data.split.class_counts
    counts = np.array(manifest["class_counts"])
    if method_class(method).made_for.get("teacher.task_loss") != "ce" or len(counts) != len(own) or teacher.class_names:
        return
    shares = counts / counts.sum() / (own / own.sum())
    if ((shares > OTHER_SHARE) | (shares < 1 / OTHER_SHARE)).any():
        logger.warning(
            "teacher.checkpoint: %s was trained on other class frequencies (%d to %d images a class, here %d to %d); "
            "method=%s takes those of this data out of its logits",
            teacher.checkpoint, counts.max(), counts.min(), own.max(), own.min(), method,
        )  # fmt: skip


def _warn_of_other_input(setup: Setup, manifest: dict[str, Any], teacher: Teacher) -> None:
    dataset, trained_with = setup.config.dataset, manifest["settings"]
    for key in INPUT:
        setting = getattr(teacher, key)
        if setting is None and trained_with[key] != getattr(dataset, key):
            logger.warning(
                "teacher.checkpoint: %s was trained with dataset.%s=%s; teacher.%s=%s lets it have that",
                teacher.checkpoint,
                key,
                trained_with[key],
                key,
                trained_with[key],
            )


def _validation_images_seen(setup: Setup, manifest: dict[str, Any]) -> int | None:
    """Counts this run's validation images among the images that the manifest's training used; None: not known."""
    own_manifest = setup.data.manifest()
    if all(manifest.get(key) == own_manifest[key] for key in ("train_data_sha256", "validation_data_sha256")):
        return 0
    dataset, then = setup.config.dataset, manifest["settings"]
    redrawn = dataset.test_share is not None and then["split_seed"] != dataset.split_seed  # rows of other images
    if dataset.source == PACK or redrawn or then["name"] != dataset.name or then.get("content") != dataset.content:
        return None
    try:
        split = load_split(replace(dataset, **{key: then[key] for key in CUT}), Path(setup.config.data_root))
    except UserError:
        return None
    if split.sha256 != manifest["sha256"]:
        return None
    return len(np.intersect1d(split.indices, setup.data.split.validation_indices))
