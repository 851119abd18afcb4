"""Settings to arrays: the one call that every run starts with."""

import inspect
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ltkd.data.dataset import DatasetConfig, LongTailData
from ltkd.data.groups import make_groups
from ltkd.data.image_files import ImageFiles
from ltkd.data.image_parts import load_files, names_sha256
from ltkd.data.long_tail import LongTailSplit, make_split
from ltkd.data.pack import pack_dataset_config, read_pack
from ltkd.data.sources import PACK, Source, load_source, reader
from ltkd.errors import UserError

_log = logging.getLogger(__name__)

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


def load_data(
    dataset: DatasetConfig, data_root: Path, *, device: torch.device | str = "cpu", resized_crops: bool = False
) -> LongTailData:
    """Reads the images and cuts the long tail; UserError when files or settings do not fit each other.

    device: that the images are for, whose memory decides whether image files are decoded now or in every epoch.
    resized_crops: training cuts from whole files, and evaluation scales and cuts as ImageNet's does.
    """
    if dataset.source == PACK:
        data = _load_pack(dataset)
        if resized_crops and data.files is not None:
            raise UserError(
                f"recipe.augmentation: resized_crop_flip cuts from whole files, and {dataset.path} holds images scaled "
                f"to {dataset.image_size} pixels; use crop_flip, or the files"
            )
        return data
    source, split = _cut(dataset, data_root)
    for level, note in source.notes:
        _log.log(level, "%s", note)
    if isinstance(source.train_images, ImageFiles):
        return load_files(dataset, source, split, device=torch.device(device), resized_crops=resized_crops)
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


def load_split(dataset: DatasetConfig, data_root: Path) -> LongTailSplit:
    """The rows that the settings choose, of every source but a pack; no file of images is decoded."""
    return _cut(dataset, data_root)[1]


def file_names(data: LongTailData, data_root: Path) -> dict[str, list[str]]:
    """The names CLASS/FILE of the training and test images in the order of their rows, by part.

    {} where the images are not in files of their own, or in a pack of them, which keeps no names.
    """
    if data.files is None or data.config.source == PACK:
        return {}
    source, split = _cut(data.config, data_root)
    names = {"train": source.train_images.take(split.indices).names, "test": source.test_images.names}
    skipped = {part: set(files) for part, files in data.files.get("skipped", {}).items()}
    return {part: [name for name in files if name not in skipped.get(part, ())] for part, files in names.items()}


def identifying_hashes(dataset: DatasetConfig, data_root: Path) -> dict[str, Any]:
    """The fields of the manifest that tell two folders of a published data set apart, without decoding an image.

    They are hashes of names and labels; {} where checksums are published, and where the content is a setting.
    """
    if dataset.source == PACK or dataset.content is not None or "path" not in reader(dataset.source).settings:
        return {}
    source, split = _cut(dataset, data_root)
    return names_sha256(source, split)


def files_of(dataset: DatasetConfig, data_root: Path) -> tuple[str | None, ...] | None:
    """Folder and lists of a published data set that may lie in several folders; None where nothing is to choose.

    They are no settings. Data sets that are verified by published checksums, or by their content, need no comparison.
    """
    if dataset.source == PACK or dataset.content is not None or (folder := reader(dataset.source).folder) is None:
        return None
    return str(Path(dataset.path or Path(data_root) / folder).resolve()), dataset.list, dataset.test_list


def complete_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The `dataset` section with what its files determine filled in wherever it has null.

    Of a pack all its settings, of a folder or list the number of classes. Values that are not yet checked go in;
    UserError where the files cannot be read.
    """
    values, source, path = dict(values), values.get("source"), values.get("path")
    if source == PACK and isinstance(path, str):
        packed = pack_dataset_config(Path(path))
        values |= {key: value for key, value in packed.items() if values.get(key) is None}
    elif isinstance(source, str) and source != PACK and values.get("num_classes") is None:
        count = reader(source).count_classes
        if count is not None:
            names = inspect.signature(count).parameters
            if all(isinstance(values.get(name), str | None) for name in names):
                values["num_classes"] = count(**{name: values.get(name) for name in names})
    return values


def why_unavailable(dataset: DatasetConfig, data_root: Path) -> str | None:
    """One line when the folder of a data set that is not downloaded is not there: no run on it can begin."""
    name = None if dataset.source == PACK else reader(dataset.source).folder
    if name is None:
        return None
    folder = Path(dataset.path or Path(data_root) / name)
    return None if folder.is_dir() else f"data set {dataset.name}: {folder} is not there"


def _cut(dataset: DatasetConfig, data_root: Path) -> tuple[Source, LongTailSplit]:
    source = load_source(dataset.source, data_root, **vars(dataset))
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
        balanced=source.balanced,
    )
    return source, split


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
