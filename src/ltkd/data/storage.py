"""Decides by arithmetic where images are during a training, on the device or read batch by batch, and says so."""

import logging
import os
from pathlib import Path

import torch

from ltkd.data.dataset import DatasetConfig
from ltkd.errors import UserError

_log = logging.getLogger(__name__)

SHARE_OF_MEMORY = 0.6  # for the images; the rest is for networks and their activations
_BATCH = 64  # images that must fit in any case


def is_streamed(
    dataset: DatasetConfig, part: str, number: int, device: torch.device, *, padding: int = 0, flip: bool = False,
    why: str | None = None,
) -> bool:  # fmt: skip
    """True if a part of `number` images is read batch by batch.

    padding, flip: of the crops that are prepared on the device. why: the reason where nothing but a stream is possible.
    UserError where dataset.storage wants what cannot be, or not even a batch fits.
    """
    if why is not None and dataset.storage == "memory":
        raise UserError(f"dataset.storage: memory is not possible, {why}; use auto or stream")
    # The padded images, mirrored too, are there twice while they are made.
    image = 2 * dataset.channels * (dataset.image_size + 2 * padding) ** 2 * (1 + flip)
    available = available_memory(device)
    if available is not None and _BATCH * image > available:
        size, needed = dataset.image_size, _BATCH * image / 1e9
        raise UserError(
            f"dataset.image_size: {_BATCH} images of {size} pixels a side take {needed:.1f} GB, "
            f"{available / 1e9:.1f} GB are free; choose fewer pixels"
        )
    streamed, reason = dataset.storage == "stream", f"dataset.storage={dataset.storage}"
    if why is not None:
        streamed, reason = True, why
    elif dataset.storage == "auto":
        streamed = available is not None and number * image > SHARE_OF_MEMORY * available
        free = "?" if available is None else f"{available / 1e9:.1f}"
        reason = f"{number * image / 1e9:.1f} GB {'would be ' if streamed else ''}needed, {free} GB are free"
    if streamed and number:
        _log.info("%s images: streamed (%s)", part, reason)
    return streamed


def available_memory(device: torch.device) -> int | None:
    """Bytes that the device can still give; of a CPU as Linux estimates it, None elsewhere."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not os.path.exists("/proc/meminfo"):
        return None
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
