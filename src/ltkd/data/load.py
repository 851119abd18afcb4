"""Settings to arrays: the one call that every run starts with."""

from dataclasses import replace
from pathlib import Path

from ltkd.data.dataset import DatasetConfig, LongTailData
from ltkd.data.groups import make_groups
from ltkd.data.long_tail import make_split
from ltkd.data.pack import read_pack
from ltkd.data.sources import load_source
from ltkd.errors import UserError

# What a pack fixes for good; groups, normalisation and augmentation can still be chosen.
_FIXED_BY_PACK = (
    "num_classes",
    "image_size",
    "channels",
    "imbalance",
    "imbalance_factor",
    "split_seed",
    "validation_per_class",
)


def load_data(dataset: DatasetConfig, data_root: Path) -> LongTailData:
    """Reads the images and cuts the long tail; UserError when files or settings do not fit each other."""
    if dataset.source == "pack":
        return _load_pack(dataset)
    source = load_source(dataset.source, data_root, download=dataset.download)
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    if source.train_images.shape[1:] != shape:
        raise UserError(
            f"dataset.channels, dataset.image_size: {shape} do not fit the images of {dataset.source}, "
            f"which are {source.train_images.shape[1:]}"
        )
    split = make_split(
        source.train_labels,
        num_classes=dataset.num_classes,
        imbalance=dataset.imbalance,
        imbalance_factor=dataset.imbalance_factor,
        split_seed=dataset.split_seed,
        validation_per_class=dataset.validation_per_class,
        groups=dataset.groups,
    )
    return LongTailData(
        name=dataset.name,
        config=dataset,
        split=split,
        class_names=source.class_names,
        train_images=source.train_images[split.indices],
        train_labels=source.train_labels[split.indices],
        validation_images=source.train_images[split.validation_indices],
        validation_labels=source.train_labels[split.validation_indices],
        test_images=source.test_images,
        test_labels=source.test_labels,
    )


def _load_pack(dataset: DatasetConfig) -> LongTailData:
    data = read_pack(Path(dataset.path))
    for key in _FIXED_BY_PACK:
        packed, asked = getattr(data.config, key), getattr(dataset, key)
        if packed != asked:
            raise UserError(
                f"dataset.{key}: {asked} is asked for, but {dataset.path} was packed with {packed} and cannot change it"
            )
    groups, group_names = make_groups(dataset.groups, data.split.canonical_counts)
    return replace(
        data, name=dataset.name, config=dataset, split=replace(data.split, groups=groups, group_names=group_names)
    )
