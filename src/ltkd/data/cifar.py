"""CIFAR-10 and CIFAR-100 in their "python version": files found or downloaded, verified, and read without trust."""

import hashlib
import io
import os
import pickle
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from ltkd.data.sources import Source, register_source
from ltkd.errors import UserError

# All that an array's pickle names. Taken from an array, because NumPy 2 moved the function to another module.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


SIZE = 32  # pixels a side


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dicts, lists, strings, numbers and NumPy arrays; any other global is refused, so that no code runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is no part of an image file")
        return _ALLOWED_GLOBALS[module, name]


@register_source("cifar10")
def read_cifar10(data_root: Path, *, download: bool, image_size: int = SIZE) -> Source:
    """CIFAR-10: 10 classes of 5,000 training images."""
    return _read("cifar10", data_root, download=download, size=image_size)


@register_source("cifar100")
def read_cifar100(data_root: Path, *, download: bool, image_size: int = SIZE) -> Source:
    """CIFAR-100: 100 classes of 500 training images."""
    return _read("cifar100", data_root, download=download, size=image_size)


def _read(name: Literal["cifar10", "cifar100"], data_root: Path, *, download: bool, size: int) -> Source:
    """Training images uint8 [50000, 3, size, size] and labels int64, test images and labels, class names.

    UserError, naming the file and what to do, when a file is missing, altered or cannot be downloaded.
    """
    if size < 1 or SIZE % size:
        raise UserError(f"dataset.image_size: {size}; CIFAR's images have {SIZE} pixels a side, or 16, 8, 4: averages")
    from torchvision.datasets import CIFAR10, CIFAR100  # slow to import, and only needed here

    published = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    folder = Path(data_root) / published.base_folder
    meta = published.meta
    label_key = "labels" if name == "cifar10" else "fine_labels"
    if download:
        _download_if_absent(published, folder)

    def read_part(files: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        batches = [read_batch_file(folder / file, md5) for file, md5 in files]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, SIZE, SIZE)
        return averaged(images, size), np.concatenate([batch[label_key] for batch in batches]).astype(np.int64)

    class_names = read_batch_file(folder / meta["filename"], meta["md5"])[meta["key"]]
    return Source(*read_part(published.train_list), *read_part(published.test_list), list(class_names))


def averaged(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [N, C, size, size] of [N, C, H, H]: each pixel the rounded mean of a square of H / size pixels a side."""
    number, channels, height, _ = images.shape
    factor = height // size
    if factor == 1:
        return images
    sums = images.reshape(number, channels, size, factor, size, factor).sum((3, 5), dtype=np.uint32)
    return ((sums + factor**2 // 2) // factor**2).astype(np.uint8)


def read_batch_file(path: Path, md5: str) -> dict[str, Any]:
    """The mapping in one batch file, whose MD5 must be the published one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); set dataset.download=true, or point the data root at "
            f"the folder that holds {path.parent.name}/"
        ) from error
    file_md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if file_md5 != md5:
        raise UserError(
            f"{path}: damaged or altered (MD5 {file_md5}, published {md5}); "
            f"delete {path.parent} and set dataset.download=true"
        )
    try:
        return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: not read, {error}; delete {path.parent} and set dataset.download=true") from error


def _download_if_absent(published: Any, folder: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    root = folder.parent
    files = [file for file, _ in published.train_list + published.test_list] + [published.meta["filename"]]

    def complete() -> bool:
        return all((folder / file).is_file() for file in files)

    if complete():  # before anything is written: shared data is often read-only
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        # The runs of a sweep start together. One of them unpacks elsewhere, so that the others never see half a file.
        with FileLock(root / f".{folder.name}.lock"), tempfile.TemporaryDirectory(dir=root) as unpacked:
            if not complete():
                download_and_extract_archive(
                    published.url, str(root), unpacked, filename=published.filename, md5=published.tgz_md5
                )
                folder.mkdir(exist_ok=True)
                for file in files:
                    os.replace(Path(unpacked) / folder.name / file, folder / file)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        raise UserError(
            f"{root / published.filename}: download from {published.url} failed ({error}); "
            f"try again, or fetch it by hand and unpack it so that {folder} exists"
        ) from error
