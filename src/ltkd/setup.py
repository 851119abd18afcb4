"""Setup: the configuration and the data on the device that the networks of one run share."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ltkd.config.schema import Config
from ltkd.data import (
    DeviceData,
    LongTailData,
    build_augmentation,
    device_data,
    load_data,
    make_groups,
    make_split,
)
from ltkd.errors import UserError
from ltkd.loop.precision import autocast, set_backends
from ltkd.loop.turns import turns
from ltkd.machine import resolve_device
from ltkd.models import ModelOutput, evaluating
from ltkd.ranks import Ranks


@dataclass(frozen=True)
class Setup:
    """The configuration, the data on the device and the device that the networks of one run share."""

    config: Config
    data: LongTailData
    device: torch.device
    train: DeviceData
    test: DeviceData
    validation: DeviceData | None

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self.train.ranks

    def in_groups(self, policy: str | dict[str, Any]) -> "Setup":
        """The same with the classes in groups of that policy."""
        if policy == self.config.dataset.groups:
            return self
        data = self.data.in_groups(policy)
        return replace(self, config=replace(self.config, dataset=data.config), data=data)


def prepare(config: Config, ranks: Ranks | None = None) -> Setup:
    """Data loaded and on the device, torch set up. UserError when the data is absent, damaged or does not fit.

    ranks: the processes that share each batch; by default it is this one alone.
    """
    ranks = ranks or Ranks()
    set_backends(config.precision, config.run.threads, config.dataset.image_size)
    device = _current_device(config, ranks)
    with ranks.in_turn():  # what the first downloads or decodes, the others find
        crops = build_augmentation(config.recipe_of(config.student).augmentation).resized_crop is not None
        described = repr((config.dataset, config.data_root, device, crops))
        setup = turns().share(described, lambda: _load(config, device, ranks, resized_crops=crops))
        if setup.train.decodes and setup.config is not config:  # it reads ahead for one training
            setup = _load(config, device, ranks, resized_crops=crops)
        return replace(setup, config=config)


def _load(config: Config, device: torch.device, ranks: Ranks, *, resized_crops: bool) -> Setup:
    data = load_data(config.dataset, Path(config.data_root), device=device, resized_crops=resized_crops)
    return Setup(
        config,
        data,
        device,
        train=device_data(data, "train", device=device).shared_by(ranks),
        test=device_data(data, "test", device=device).shared_by(ranks),
        validation=(
            device_data(data, "validation", device=device).shared_by(ranks) if len(data.validation_labels) else None
        ),
    )


def _current_device(config: Config, ranks: Ranks | None = None) -> torch.device:
    """The run's device, made the one that pinned memory, graphs and compiled kernels take where none is named.

    Of several processes on one machine each takes a GPU of its own.
    """
    device = resolve_device(config.device)
    if ranks is not None and not ranks.alone and device.type == "cuda":
        device = _own_gpu(config.device, ranks)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _own_gpu(name: str, ranks: Ranks) -> torch.device:
    visible = torch.cuda.device_count()
    if name not in ("auto", "cuda"):
        raise UserError(f"device: {name} is one GPU; of several processes each takes its own with device=cuda")
    if visible == 1:  # as SLURM binds a task to its GPU
        return torch.device("cuda:0")
    if ranks.local_rank >= visible:
        raise UserError(f"device: process {ranks.local_rank} of this machine has no GPU, it has {visible}")
    return torch.device(f"cuda:{ranks.local_rank}")


def synthetic_setup(config: Config, num_images: int) -> Setup:
    """About `num_images` random images, as many of each class, in the shape of the data set: for counting and timing
    without its files."""
    set_backends(config.precision, config.run.threads, config.dataset.image_size)
    dataset, device = config.dataset, _current_device(config)
    labels = np.repeat(np.arange(dataset.num_classes), -(-num_images // dataset.num_classes))
    shape = (len(labels), dataset.channels, dataset.image_size, dataset.image_size)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    split = make_split(
        labels,
        num_classes=dataset.num_classes,
        imbalance="none",
        imbalance_factor=1,
        split_seed=0,
        validation_per_class=0,
        groups="rank_thirds",
    )
    falling = np.arange(
        dataset.num_classes, 0, -1
    )  # a tail to group by, which as many images of each class do not have
    groups, group_names = make_groups(dataset.groups, falling)
    split = replace(split, groups=groups, group_names=group_names)
    names = [str(label) for label in range(dataset.num_classes)]
    parts = images[split.indices], labels[split.indices], images[:0], labels[:0], images[:10], labels[:10]
    data = LongTailData(dataset.name, dataset, split, names, *parts)
    train, test = (device_data(data, part, device=device) for part in ("train", "test"))
    return Setup(config, data, device, train, test, None)


def describe(setup: Setup) -> str:
    """The head line of a log: data set, images of each group, device."""
    counts, groups = setup.data.split.class_counts, setup.data.split.groups
    images = (f"{name} {counts[groups == group].sum()}" for group, name in enumerate(setup.data.split.group_names))
    held_out = f", {len(setup.validation)} for validation" if setup.validation else ""
    unbalanced = [name for name in ("test", "validation") if not _is_balanced(getattr(setup, name))]
    balance_note = (
        f"; not balanced: {' and '.join(unbalanced)}, where accuracy counts images alike" if unbalanced else ""
    )
    return (
        f"{setup.data.name}: {len(setup.train)} training images ({', '.join(images)}){held_out}, "
        f"{len(setup.test)} test images, {len(counts)} classes{balance_note}; device {setup.device}"
    )


def _is_balanced(part: DeviceData | None) -> bool:
    counts = [] if part is None else torch.bincount(part.labels).tolist()
    return len({count for count in counts if count}) <= 1


@torch.no_grad()
def predict(setup: Setup, model: nn.Module, images: torch.Tensor, features: bool = False) -> ModelOutput:
    """The network's output on images [B, C, H, W] in evaluation mode, without gradients."""
    with evaluating(model), autocast(setup.config.precision, setup.device):
        return model(images, features=features)
