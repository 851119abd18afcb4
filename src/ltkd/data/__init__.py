"""Images, labels, the long-tailed split, class groups, and batches on the device."""

import importlib
import pkgutil

from ltkd.data.augmentation import CHOICES as AUGMENTATIONS
from ltkd.data.augmentation import build_augmentation, joined_choice, split_choice
from ltkd.data.batch import Batch
from ltkd.data.batches import DeviceData
from ltkd.data.content import with_content
from ltkd.data.dataset import DatasetConfig, LongTailData
from ltkd.data.groups import DEFAULT_GROUPS, group_policy, make_groups
from ltkd.data.load import (
    complete_settings,
    file_names,
    files_of,
    identifying_hashes,
    load_data,
    load_split,
    why_unavailable,
)
from ltkd.data.long_tail import LongTailSplit, class_counts, make_split
from ltkd.data.manifest import check_manifest, write_manifest
from ltkd.data.pack import pack_dataset_config, read_pack, write_pack
from ltkd.data.plan import EpochPlan
from ltkd.data.sampling import Sampler, build_sampler, sampler_class
from ltkd.data.second_view import SecondViews
from ltkd.data.sources import Source, list_sources, load_source, register_source
from ltkd.data.streaming import StreamedData, device_data

__all__ = [
    "AUGMENTATIONS",
    "DEFAULT_GROUPS",
    "Batch",
    "DatasetConfig",
    "DeviceData",
    "EpochPlan",
    "LongTailData",
    "LongTailSplit",
    "Sampler",
    "SecondViews",
    "Source",
    "StreamedData",
    "build_augmentation",
    "build_sampler",
    "check_manifest",
    "class_counts",
    "complete_settings",
    "device_data",
    "file_names",
    "files_of",
    "group_policy",
    "identifying_hashes",
    "joined_choice",
    "list_sources",
    "load_data",
    "load_source",
    "load_split",
    "make_groups",
    "make_split",
    "pack_dataset_config",
    "read_pack",
    "register_source",
    "sampler_class",
    "split_choice",
    "why_unavailable",
    "with_content",
    "write_manifest",
    "write_pack",
]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")  # importing a file of this folder registers its sources
