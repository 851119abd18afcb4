"""The images that a finished network was trained and tested on, found again from its run's settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltkd.config.bind import bind
from ltkd.data import DatasetConfig, LongTailData, check_manifest, load_data
from ltkd.deploy.description import augmentation_of
from ltkd.errors import UserError
from ltkd.results.files import RunFiles
from ltkd.runs.load import FinishedRun

PLACES = ("path", "list", "train_list", "validation_list", "test_list", "class_names")  # may differ on another machine


def data_of_run(run: FinishedRun, overrides: Sequence[str]) -> tuple[LongTailData, Path]:
    """The run's data and its data root. overrides: where it lies now (data_root, dataset.path or a list).

    UserError where it is not there, or is not what the run's manifest says.
    """
    settings = _with_places(run.settings, overrides)
    errors: list[str] = []
    arguments = bind(DatasetConfig, settings["dataset"], "dataset", errors)
    if errors:
        raise UserError("; ".join(errors))
    for key in PLACES:
        place = settings["dataset"].get(key)
        if place is not None and not Path(place).exists():
            raise UserError(f"dataset.{key}: {place} is not there; add dataset.{key}=... with where it lies now")
    root = Path(settings["data_root"])
    resized_crops = augmentation_of(run).resized_crop is not None
    data = load_data(DatasetConfig(**arguments), root, resized_crops=resized_crops).decoded()
    check_manifest(RunFiles(run.directory).manifest, data.manifest())
    return data, root


def _with_places(settings: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    known = ["data_root", *(f"dataset.{key}" for key in PLACES)]
    for override in overrides:
        if override.partition("=")[0] not in known:
            raise UserError(
                f"{override}: the run's own settings are used; only where the data lies can be said: {', '.join(known)}"
            )
    try:
        return OmegaConf.to_container(
            OmegaConf.merge(OmegaConf.create(settings), OmegaConf.from_dotlist(list(overrides)))
        )
    except OmegaConfBaseException as error:
        raise UserError(str(error)) from error
