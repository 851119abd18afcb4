"""What the networks of one run share: configuration, data on the device, and predictions in evaluation mode."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ltkd.config import Config, resolve_device
from ltkd.data import (
    DatasetConfig,
    DeviceData,
    LongTailData,
    check_manifest,
    device_data,
    load_data,
    make_groups,
    make_split,
    pack_data_sha256,
    write_manifest,
)
from ltkd.engine.precision import autocast, set_backends
from ltkd.files import read_json
from ltkd.models import ModelOutput

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Workplace:
    """What the networks of one run share: the configuration, the data on the device, the device."""

    config: Config
    data: LongTailData
    device: torch.device
    train: DeviceData
    test: DeviceData
    validation: DeviceData | None


def prepare(config: Config) -> Workplace:
    """Data loaded and on the device, torch set up. UserError when the data is absent, damaged or does not fit."""
    set_backends(config.precision, config.run.threads, config.dataset.image_size)
    device = resolve_device(config.device)
    data = load_data(config.dataset, Path(config.data_root))
    return Workplace(
        config, data, device,
        train=device_data(data, "train", device=device),
        test=device_data(data, "test", device=device),
        validation=device_data(data, "validation", device=device) if len(data.validation_labels) else None,
    )  # fmt: skip


def made_up_place(config: Config, num_images: int) -> Workplace:
    """About `num_images` random images, as many of each class, in the shape of the data set: for counting and timing
    without its files."""
    set_backends(config.precision, config.run.threads, config.dataset.image_size)
    dataset, device = config.dataset, resolve_device(config.device)
    labels = np.repeat(np.arange(dataset.num_classes), -(-num_images // dataset.num_classes))
    shape = (len(labels), dataset.channels, dataset.image_size, dataset.image_size)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    split = make_split(
        labels, num_classes=dataset.num_classes, imbalance="none", imbalance_factor=1, split_seed=0,
        validation_per_class=0, groups="rank_thirds",
    )  # fmt: skip
    falling = np.arange(
        dataset.num_classes, 0, -1
    )  # a tail to group by, which as many images of each class do not have
    groups, group_names = make_groups(dataset.groups, falling)
    split = replace(split, groups=groups, group_names=group_names)
    names = [str(label) for label in range(dataset.num_classes)]
    parts = images[split.indices], labels[split.indices], images[:0], labels[:0], images[:10], labels[:10]
    data = LongTailData(dataset.name, dataset, split, names, *parts)
    train, test = (device_data(data, part, device=device) for part in ("train", "test"))
    return Workplace(config, data, device, train, test, None)


def describe(place: Workplace) -> str:
    """One line for the head of a log: what is trained on, and where."""
    counts, groups = place.data.split.class_counts, place.data.split.groups
    images = (f"{name} {counts[groups == group].sum()}" for group, name in enumerate(place.data.split.group_names))
    held_out = f", {len(place.validation)} for validation" if place.validation else ""
    return (
        f"{place.data.name}: {len(place.train)} training images ({', '.join(images)}){held_out}, "
        f"{len(place.test)} test images, {len(counts)} classes; device {place.device}"
    )


def agree_on_data(directory: Path, data: LongTailData) -> None:
    """What was trained here before was trained on exactly this data, or nothing goes on."""
    path, manifest = directory / MANIFEST, data.manifest()
    if path.exists():
        check_manifest(path, manifest)
    else:
        write_manifest(path, manifest)


def agree_on_pack(directory: Path, dataset: DatasetConfig) -> None:
    """Of a finished run: two packs may have the same settings and other images. Cheap, no image is read."""
    path = directory / MANIFEST
    if dataset.source == "pack" and path.exists():
        check_manifest(path, read_json(path) | pack_data_sha256(Path(dataset.path)))


@torch.no_grad()
def predict(place: Workplace, model: nn.Module, images: torch.Tensor, features: bool = False) -> ModelOutput:
    was_training = model.training
    model.eval()
    with autocast(place.config.precision, place.device):
        output = model(images, features=features)
    model.train(was_training)
    return output
