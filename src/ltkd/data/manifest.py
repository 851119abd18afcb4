"""manifest.json: what data a run was trained on, written beside it and checked when the run is taken up again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltkd.errors import UserError
from ltkd.files import write_json

_FIELDS_NAMED = 3  # the first differences say enough; class by class they would fill the screen


def data_sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """Hashes uint8 images [N, C, H, W] with their shape, and the labels [N] as little-endian int64."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images))
    digest.update(np.ascontiguousarray(labels, dtype="<i8"))
    return digest.hexdigest()


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Atomic: readers see the old file or the whole new one."""
    write_json(path, manifest)


def check_manifest(path: Path, manifest: Mapping[str, Any], *, with_groups: bool = True) -> None:
    """UserError when the manifest at `path` is unreadable or tells of other data: the first fields that differ.

    with_groups: False where groups of classes do not concern a run but in what is reported of it.
    """
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(stored, dict):
            raise ValueError("not a mapping")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable manifest ({error}); move the run's folder away and run again"
        ) from error
    # Through JSON, so that tuples and lists, 1 and 1.0 compare as they would be read back.
    fields_now, fields_stored = _flatten(json.loads(json.dumps(manifest))), _flatten(stored)
    absent = "(absent)"
    differing = [
        f"{key}: {_short(fields_stored.get(key, absent))} there, {_short(fields_now.get(key, absent))} now"
        for key in dict.fromkeys([*fields_now, *fields_stored])
        if fields_stored.get(key, absent) != fields_now.get(key, absent) and (with_groups or not _is_of_groups(key))
    ]
    if differing:
        more = f"; and {len(differing) - _FIELDS_NAMED} more" if len(differing) > _FIELDS_NAMED else ""
        raise UserError(f"{path}: made with other data than this run's: {'; '.join(differing[:_FIELDS_NAMED])}{more}")


def _is_of_groups(key: str) -> bool:
    return key in ("groups", "group_names", "settings.groups") or key.startswith("settings.groups.")


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
