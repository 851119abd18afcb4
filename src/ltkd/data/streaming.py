"""Batches of images that do not fit on the device: read from where they are, or decoded again in every epoch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ltkd.data.batch import Batch
from ltkd.data.batches import DeviceData, flipped, to_device
from ltkd.data.dataset import LongTailData
from ltkd.data.image_files import ImageFiles
from ltkd.data.loader import FileLoader
from ltkd.data.plan import EpochPlan
from ltkd.data.storage import is_streamed
from ltkd.machine import num_cores


def device_data(
    data: LongTailData,
    part: Literal["train", "validation", "test"],
    *,
    device: torch.device | str,
    memory_format: torch.memory_format = torch.channels_last,
) -> DeviceData:
    """One part of a data set for the device; only the training part is prepared for augmentation.

    All on the device where that fits, else streamed, unless dataset.storage says which; files that were not decoded are
    streamed.
    """
    training, config, images = part == "train", data.config, getattr(data, f"{part}_images")
    padding, flip = config.crop_padding if training else 0, config.horizontal_flip and training
    device = torch.device(device)
    if isinstance(images, ImageFiles):
        kind = StreamedFiles
    else:
        streamed = is_streamed(config, part, len(images), device, padding=padding, flip=flip)
        kind = StreamedData if streamed else DeviceData
    result = kind(
        images,
        getattr(data, f"{part}_labels"),
        mean=config.mean,
        std=config.std,
        crop_padding=padding,
        horizontal_flip=flip,
        device=device,
        memory_format=memory_format,
    )
    result.workers = config.workers
    return result


class StreamedData(DeviceData):
    """The same batches, bit for bit, from images that stay where they are: an array or a decoded file that is mapped.

    Each batch's images are read, moved and cropped when it is asked for. The memory that this takes is that of a
    batch's crops; what the system keeps of the file in its cache, it gives back.
    """

    on_device = False

    def _store(self) -> None:
        """Nothing is stored."""

    def _read(self, rows: Tensor | slice) -> Tensor:
        rows = rows.to(self.source.device) if isinstance(rows, Tensor) else rows
        return self._all_crops(to_device(self.source[rows], self.device))

    def _cut(self, index: Tensor, mirrored: Tensor, top: Tensor, left: Tensor) -> Tensor:
        return self._read(index)[torch.arange(len(index), device=self.device), mirrored, top, left]

    def _whole(self, part: slice) -> Tensor:
        return self._read(part)[:, 0, self.crop_padding, self.crop_padding]


class StreamedFiles(StreamedData):
    """The same batches from image files, which are decoded again in every epoch.

    The steps of an epoch come from worker processes, which start when the first one is asked for; single batches, and
    the first of an evaluation, are decoded by threads of this process. The pixels move to the device as bytes, and
    everything after a random resized crop is done there. Memory: `FileLoader`'s.
    """

    decodes = True

    def _store(self) -> None:
        self._epoch = _Epoch()

    def _read(self, rows: Tensor | slice) -> Tensor:
        rows = rows.cpu() if isinstance(rows, Tensor) else torch.arange(len(self))[rows]
        return self._all_crops(self.raw(rows).to(self.device))

    def raw(self, rows: Tensor) -> Tensor:
        parts = np.array_split(rows.cpu().numpy(), num_cores())
        with ThreadPoolExecutor(num_cores()) as pool:
            pixels = list(pool.map(lambda part: self.source.read(part, [None] * len(part)), parts))
        return torch.from_numpy(np.concatenate(pixels))

    def _changed_in(self, name: str, value: Any) -> "DeviceData":
        data = super()._changed_in(name, value)
        data._store()  # its own epoch: crops and images may be others
        return data

    def fetch(self, plan: EpochPlan, step: int, batch_size: int) -> EpochPlan:
        """The next step of an epoch is there already; any other starts the workers anew from there on."""
        epoch = self._epoch
        if epoch.plan is not plan or (epoch.next, epoch.batch_size) != (step, batch_size):
            epoch.plan, epoch.next, epoch.batch_size = plan, step, batch_size
            epoch.loader = epoch.loader or self._new_loader()
            epoch.batches = epoch.loader.batches(self._requests(plan, step, batch_size))
        epoch.next += 1
        part = self._choices(plan, step, batch_size)
        pixels = next(epoch.batches).to(self.device, non_blocking=True)
        if "crop_seeds" in part.drawn:
            crops = flipped(pixels.permute(0, 2, 3, 1), part.flips)
        else:
            left = torch.where(part.flips, 2 * self.crop_padding - part.offsets_x, part.offsets_x)
            where = torch.arange(len(pixels), device=self.device), part.flips.long(), part.offsets_y, left
            crops = self._all_crops(pixels)[where]
        return self._with_pixels(part, self._changed(crops, part))

    def _requests(self, plan: EpochPlan, first: int, batch_size: int) -> list[tuple[np.ndarray, np.ndarray | None]]:
        rows, seeds = plan.permutation.cpu().numpy(), plan.drawn.get("crop_seeds")
        epoch = self.steps(batch_size)
        steps = [epoch.fetched(step) for step in range(first, len(epoch))]

        def of_step(values: np.ndarray, parts: list[slice]) -> np.ndarray:
            return np.concatenate([values[part] for part in parts])

        return [(of_step(rows, parts), None if seeds is None else of_step(seeds.numpy(), parts)) for parts in steps]

    def _new_loader(self) -> FileLoader:
        crop = self.augmentation.resized_crop
        smallest = 1.0 if crop is None else crop.smallest
        return FileLoader(self.source, self.workers, smallest, pin=self.device.type == "cuda")

    def evaluation_batches(self, batch_size: int | None = None, rows: slice = slice(None)) -> Iterator[Batch]:
        parts = self._parts(batch_size or self.forward_batch, rows)
        positions, rest = np.arange(len(self)), None
        for number, part in enumerate(parts):
            if number == 0:  # often the only one that is wanted
                pixels = self.raw(torch.from_numpy(positions[part])).to(self.device)
            else:
                if rest is None:
                    rest = self._new_loader().batches([(positions[later_part], None) for later_part in parts[1:]])
                pixels = next(rest).to(self.device, non_blocking=True)
            index = torch.arange(part.start, part.stop, device=self.device)
            yield Batch(self._normalise(pixels.permute(0, 2, 3, 1).contiguous()), self.labels[part], index)


@dataclass
class _Epoch:
    """The workers, and the place in the epoch that they are at."""

    loader: FileLoader | None = None
    batches: Iterator[Tensor] | None = None
    plan: EpochPlan | None = None
    next: int = 0
    batch_size: int = 0
