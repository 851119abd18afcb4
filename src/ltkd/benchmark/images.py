"""Images read from files: the engine's stream against torchvision's ImageFolder and DataLoader, in one run.

Both decode the same JPEG files with as many workers, crop and flip them at random and bring normalised batches to the
device: once with nothing else to do, and once for a network that is trained on them, which then waits as long as no
batch is there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ltkd.config.schema import Config
from ltkd.data import DatasetConfig, device_data, load_data
from ltkd.machine import resolve_device
from ltkd.models import build_model


@dataclass(frozen=True)
class Kind:
    """A size of images, the files that they come from and how they are cut."""

    size: int
    file_size: tuple[int, int]  # width, height
    augmentation: str


# TinyImageNet's files and the field's crop for them; the median size of ImageNet's, and its crop
KINDS = (Kind(64, (64, 64), "crop_flip"), Kind(224, (500, 375), "resized_crop_flip"))


@dataclass(frozen=True)
class StreamMeasurement:
    """Images per second of a loop, without and with a network; medians over the rounds."""

    name: str
    size: int
    images_per_second: float
    training_images_per_second: float
    waiting_share: float  # of the training's time, in which the network waits for images


def measure_images(
    config: Config, *, workers: int, steps: int, rounds: int, folder: Path, say: Callable[[str], None],
    kinds: Sequence[Kind] = KINDS,
) -> list[StreamMeasurement]:  # fmt: skip
    """Measure both loops over `steps` batches for each kind. The files are made below `folder` from the data set's."""
    device, batch_size = resolve_device(config.device), config.recipe.batch_size
    images = load_data(config.dataset, Path(config.data_root)).decoded().train_images
    rows = []
    for kind in kinds:
        say(f"preparing: {kind.size} pixels")
        dataset = _write_files(config, images, kind, steps * batch_size, folder / str(kind.size))
        loops: dict[str, _Plain | _Stream] = {
            "ImageFolder + DataLoader": _Plain(dataset, kind, workers, batch_size, device),
            "stream": _Stream(dataset, kind, workers, batch_size, device),
        }
        times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in loops}
        for number in range(rounds + 1):
            say(f"round {number} of {rounds}" if number else "warming up")
            for name, loop in loops.items():
                network = _network(config, kind, device)
                (alone, _), (training, waiting) = _seconds(loop.batches()), _seconds(loop.batches(), network)
                if number:
                    times[name].append((alone, training, waiting / training))
        for name, measured in times.items():
            alone, training, share = (median(values) for values in zip(*measured, strict=True))
            count = steps * batch_size
            rows.append(StreamMeasurement(name, kind.size, count / alone, count / training, share))
    return rows


def images_table(rows: Sequence[StreamMeasurement], title: str) -> str:
    """The rows as Markdown, ratios to the plain loop of the same size."""
    plain = {row.size: row for row in reversed(rows)}
    body = [
        [
            f"{row.size} pixels, {row.name}",
            f"{row.images_per_second:,.0f}",
            f"{row.images_per_second / plain[row.size].images_per_second:.2f}",
            f"{row.training_images_per_second:,.0f}",
            f"{100 * row.waiting_share:.1f} %",
        ]
        for row in rows
    ]
    headers = ["", "images/s", "x plain", "images/s in training", "network waits"]
    table = tabulate(body, headers, tablefmt="github", colalign=["left", *["right"] * 4], disable_numparse=True)
    return f"{title}\n\n{table}\n\nMedians."


def _write_files(config: Config, images: np.ndarray, kind: Kind, number: int, folder: Path) -> DatasetConfig:
    """The first images of the data set, scaled, as train/CLASS/*.jpg of two classes, and one of each to test."""
    for position in range(number + 2):
        part, place = ("train", position) if position < number else ("test", position - number)
        path = folder / part / "ab"[place % 2] / f"{place:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = images[position * len(images) // (number + 2)].transpose(1, 2, 0).squeeze()
        Image.fromarray(pixels).convert("RGB").resize(kind.file_size, Image.Resampling.BICUBIC).save(path, quality=90)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return replace(
        config.dataset, name="files", source="image_folder", path=str(folder), num_classes=2, channels=3,
        image_size=kind.size, crop_padding=kind.size // 8, horizontal_flip=True, mean=mean, std=std, imbalance="none",
        imbalance_factor=1, validation_per_class=0, groups="rank_thirds", storage="stream", list=None,
        train_list=None, test_list=None, validation_list=None, class_names=None, test_share=None,
    )  # fmt: skip


class _Plain:
    """The field's loop: transforms of torchvision on PIL images, all in the workers."""

    def __init__(self, dataset: DatasetConfig, kind: Kind, workers: int, batch_size: int, device: torch.device) -> None:
        from torchvision import datasets, transforms

        crop = (
            transforms.RandomResizedCrop(kind.size)
            if kind.augmentation == "resized_crop_flip"
            else transforms.RandomCrop(kind.size, padding=dataset.crop_padding)
        )
        after = [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
        steps = transforms.Compose([crop, transforms.RandomHorizontalFlip(), *after])
        self._device = device
        self._loader = torch.utils.data.DataLoader(
            datasets.ImageFolder(Path(dataset.path) / "train", steps),
            batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._loader:
            yield images.to(self._device, non_blocking=True), labels.to(self._device)


class _Stream:
    """The engine's."""

    def __init__(self, dataset: DatasetConfig, kind: Kind, workers: int, batch_size: int, device: torch.device) -> None:
        data = load_data(
            replace(dataset, workers=workers),
            Path(),
            device=device,
            resized_crops=kind.augmentation == "resized_crop_flip",
        )
        self._data = device_data(data, "train", device=device).augmented(kind.augmentation)
        self._generator, self._batch_size = torch.Generator().manual_seed(0), batch_size

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        plan = self._data.draw_epoch(self._generator)
        for step in range(len(self._data.steps(self._batch_size))):
            batch = self._data.batch(plan, step, self._batch_size)
            yield batch.images, batch.labels


def _network(config: Config, kind: Kind, device: torch.device) -> nn.Module:
    student = config.student
    return build_model(student.name, 2, in_channels=3, **student.arguments).to(
        device, memory_format=torch.channels_last
    )


def _seconds(batches: Iterator[tuple[Tensor, Tensor]], network: nn.Module | None = None) -> tuple[float, float]:
    """(all seconds of an epoch, those of waiting for batches)"""
    optimizer = None if network is None else torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    start, waiting = time.perf_counter(), 0.0
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is not None and batch[0].device.type == "cuda":
            torch.cuda.synchronize()
        waiting += time.perf_counter() - asked
        if batch is None:
            return time.perf_counter() - start, waiting
        if network is not None:
            images, labels = batch
            loss = cross_entropy(network(images).logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
