"""A pack: one file with exactly the images, labels and groups of a split, to share or to travel.

An uncompressed zip of manifest.json (settings, class names, the data's manifest, a SHA-256 of every other member),
arrays.npz (indices, labels, counts) and lossless WebP mosaics of the images, the smallest exact form measured. Nothing
in it is unpickled.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltkd.data.dataset import DatasetConfig, LongTailData
from ltkd.data.long_tail import LongTailSplit
from ltkd.errors import UserError
from ltkd.files import write_bytes

_FORMAT = "ltkd-pack-1"
_MANIFEST, _ARRAYS = "manifest.json", "arrays.npz"
_PARTS = ("train", "validation", "test")
_COLUMNS = 64
_MAX_SIDE = 16383  # pixels, WebP's limit
_MAX_PIXELS = 64 * 64 * 32 * 32  # per mosaic, which keeps the memory of decoding small
# Whatever reading a damaged file may raise, in zipfile, json, NumPy, Pillow or here.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    RuntimeError,
)
_SPLIT_ARRAYS = [field.name for field in fields(LongTailSplit) if field.type is np.ndarray]


def write_pack(path: Path, data: LongTailData) -> None:
    """Packs the selected training images, the validation and the test images; the file appears whole or not at all."""
    data = replace(data, config=replace(data.config, content=None))  # the pack has a content of its own
    data, members = data.decoded(), {}
    arrays = {name: getattr(data.split, name) for name in _SPLIT_ARRAYS}
    for part in _PARTS:
        arrays[f"{part}_labels"] = getattr(data, f"{part}_labels")
        for number, mosaic in enumerate(_mosaics(getattr(data, f"{part}_images"))):
            members[f"{part}_{number}.webp"] = _encode(mosaic)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    members[_ARRAYS] = buffer.getvalue()
    manifest = {
        "format": _FORMAT,
        "settings": data.config.settings(),
        "class_names": data.class_names,
        "data": data.manifest(),
        "members": {name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
    }
    members[_MANIFEST] = json.dumps(manifest, indent=2).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # a ZipInfo has a fixed date: same data, same bytes
    write_bytes(path, buffer.getvalue())


def read_pack(path: Path) -> LongTailData:
    """The data as it was packed, every member verified; UserError when the file is missing, damaged or no pack."""
    with _readable(path) as archive:
        manifest = _read_manifest(archive)
        members = {}
        for name, sha256 in manifest["members"].items():
            members[name] = archive.read(name)
            if hashlib.sha256(members[name]).hexdigest() != sha256:
                raise ValueError(f"checksum of {name}")
        with np.load(io.BytesIO(members[_ARRAYS]), allow_pickle=False) as archived:
            arrays = dict(archived)
        config = DatasetConfig(**_dataset_config(manifest, path))
        parts = {}
        for part in _PARTS:
            labels = parts[f"{part}_labels"] = arrays.pop(f"{part}_labels")
            mosaics = [members[name] for name in members if name.startswith(f"{part}_")]
            parts[f"{part}_images"] = _tiles(mosaics, len(labels), config.channels, config.image_size)
        split = LongTailSplit(**arrays, group_names=manifest["data"]["group_names"])
        files = manifest["data"].get("files")
        data = LongTailData(config.name, config, split, manifest["class_names"], **parts, files=files)
        if data.manifest() != manifest["data"]:  # also catches a decoder that is not exact
            raise ValueError("the decoded images are not those that were packed")
        return data


def pack_dataset_config(path: Path) -> dict[str, Any]:
    """The values of DatasetConfig for a pack: the settings it was packed with, source "pack" and this path."""
    with _readable(path) as archive:
        return _dataset_config(_read_manifest(archive), path)


def pack_content(path: Path) -> dict[str, Any]:
    """All of a pack that its settings do not say, as its manifest states it: nothing is decoded.

    Hashes of pixels and labels, the names of the classes in their order, and the images that validation took from
    training, which groups do not count.
    """
    with _readable(path) as archive:
        manifest = _read_manifest(archive)
        data = manifest["data"]
        hashes = {key: data[key] for key in (f"{part}_data_sha256" for part in _PARTS)}
        from_training = data["validation_from_training"]
        return hashes | {"class_names": manifest["class_names"], "validation_from_training": from_training}


def _dataset_config(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    return {**manifest["settings"], "source": "pack", "download": False, "path": str(path)}


@contextmanager
def _readable(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a pack; whatever a damaged file leads to is told as one UserError that names it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such pack file; check dataset.path") from error
    except _DAMAGE as error:
        raise UserError(f"{path}: damaged, cut off or no pack ({error}); copy it again or pack it anew") from error


def _read_manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    manifest = json.loads(archive.read(_MANIFEST))
    if manifest["format"] != _FORMAT:
        raise ValueError(f"format {manifest['format']!r}, expected {_FORMAT!r}")
    return manifest


def _mosaics(images: np.ndarray) -> Iterator[np.ndarray]:
    """Images [N, C, H, W] as pictures [rows * H, columns * W, 3], tiles row by row, the last row filled with black."""
    _, channels, height, width = images.shape
    columns = min(_COLUMNS, _MAX_SIDE // width)
    rows = max(1, min(_MAX_PIXELS // (columns * width), _MAX_SIDE) // height)
    for start in range(0, len(images), columns * rows):
        tiles = images[start : start + columns * rows]
        used_rows = -(-len(tiles) // columns)
        filled = np.zeros((used_rows * columns, channels, height, width), dtype=np.uint8)
        filled[: len(tiles)] = tiles
        grid = filled.reshape(used_rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
        picture = grid.reshape(used_rows * height, columns * width, channels)
        yield np.broadcast_to(picture, (*picture.shape[:2], 3))  # grey as red = green = blue


def _tiles(mosaics: list[bytes], count: int, channels: int, size: int) -> np.ndarray:
    """Back to images [count, channels, size, size] from what `_mosaics` made; grey is any of the equal channels."""
    images = np.empty((count, channels, size, size), dtype=np.uint8)
    filled = 0
    for mosaic in mosaics:
        picture = _decode(mosaic)[..., :channels]
        rows, columns = picture.shape[0] // size, picture.shape[1] // size
        grid = picture.reshape(rows, size, columns, size, channels).transpose(0, 2, 4, 1, 3)
        tiles = grid.reshape(-1, channels, size, size)[: count - filled]
        images[filled : filled + len(tiles)] = tiles
        filled += len(tiles)
    if filled != count:
        raise ValueError(f"{filled} images where {count} were packed")
    return images


def _encode(picture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def _decode(content: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
        return np.asarray(image.convert("RGB"))
