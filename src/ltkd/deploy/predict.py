"""Predictions for image files: found, decoded and classified batch by batch, with those that cannot be read named."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from ltkd.data.decoding import ENDINGS, BadImage, decode
from ltkd.data.image_folder import images_below
from ltkd.deploy.description import Description
from ltkd.deploy.open import DeployedNetwork
from ltkd.errors import UserError
from ltkd.machine import num_cores

TOP = 5  # classes of an image that are named


@dataclass(frozen=True)
class Prediction:
    """An image's most probable classes, most probable first, each with its probability; or why it has none."""

    file: str
    classes: list[tuple[str, float]]
    group: str | None = None  # of the first class
    problem: str | None = None


def find_images(places: Iterable[str]) -> list[Path]:
    """The images that files, folders (with all below them, sorted) and lists (.txt, a path in each line) name.

    A relative path in a list is taken from the list's folder. UserError for a place that is not there or a folder
    without images; a named file that cannot be read is left for `predict` to say.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            below = sorted(place / name for name in images_below(place))
            if not below:
                raise UserError(f"{place}: no images in it (files that end in {', '.join(ENDINGS)})")
            files += below
        elif place.suffix == ".txt" and place.is_file():
            try:
                lines = place.read_text(encoding="utf-8-sig").split("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{place}: cannot be read as a list of paths in UTF-8 ({error})") from error
            files += [place.parent / line.strip() for line in lines if line.strip()]
        elif place.is_file():
            files.append(place)
        else:
            raise UserError(f"{place}: no such file or folder")
    if not files:
        raise UserError("images: none; name files, folders or a .txt file with a path in each line")
    return files


def predict(
    network: DeployedNetwork,
    files: Sequence[Path],
    *,
    correct: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 64,
) -> Iterator[Prediction]:
    """A Prediction for each file, in order. correct: of logits [B, C]."""
    about = network.about

    def read(path: Path) -> np.ndarray | BadImage:
        try:
            return decode(path, channels=about.channels, size=about.image_size, shorter=about.shorter_side)
        except BadImage as error:
            return error

    with ThreadPoolExecutor(num_cores()) as pool:
        for start in range(0, len(files), batch_size):
            part = files[start : start + batch_size]
            images = list(pool.map(read, part))
            good = [image for image in images if isinstance(image, np.ndarray)]
            raw_logits = network.classify(np.stack(good)) if good else np.empty((0, about.num_classes), np.float32)
            logits = iter(raw_logits if correct is None else correct(torch.from_numpy(raw_logits)).numpy())
            for path, image in zip(part, images, strict=True):
                if isinstance(image, BadImage):
                    yield Prediction(str(path), [], problem=str(image))
                else:
                    yield _prediction(str(path), next(logits), about)


def _prediction(file: str, logits: np.ndarray, about: Description) -> Prediction:
    shifted = np.exp(np.float64(logits) - logits.max())
    probabilities = shifted / shifted.sum()
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    classes = [(about.class_names[label], float(probabilities[label])) for label in order]
    return Prediction(file, classes, about.group_of(int(order[0])))


def write_csv(predictions: Iterable[Prediction], file: TextIO, num_classes: int) -> None:
    """A line for each image: file, class, probability, group, then the next classes. Unreadable files are left out."""
    top = min(TOP, num_classes)
    rest = [column for rank in range(2, top + 1) for column in (f"class_{rank}", f"probability_{rank}")]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["file", "class", "probability", "group", *rest])
    for prediction in predictions:
        if prediction.problem is None:
            (first, probability), *runners_up = prediction.classes
            later = [value for name, p in runners_up for value in (name, f"{p:.6f}")]
            writer.writerow([prediction.file, first, f"{probability:.6f}", prediction.group, *later])


def write_json_lines(predictions: Iterable[Prediction], file: TextIO, num_classes: int) -> None:
    """A JSON object in a line for each image: file, class, probability, group, top (name and probability of each)."""
    for prediction in predictions:
        if prediction.problem is None:
            top: list[dict[str, Any]] = [{"class": name, "probability": round(p, 6)} for name, p in prediction.classes]
            line = {"file": prediction.file, **top[0], "group": prediction.group, "top": top}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


WRITERS = {".csv": write_csv, ".jsonl": write_json_lines}
NOT_UTF8 = {".csv": "surrogateescape", ".jsonl": "backslashreplace"}  # a file's name: its own bytes, an escape of JSON


def collecting(predictions: Iterable[Prediction], total: int, unreadable: list[Prediction]) -> Iterator[Prediction]:
    """The same predictions with a progress bar (on a terminal); those without a class are added to `unreadable`."""
    from tqdm import tqdm

    for prediction in tqdm(predictions, total=total, unit="image", leave=False, disable=None, file=sys.stderr):
        if prediction.problem is not None:
            unreadable.append(prediction)
        yield prediction
