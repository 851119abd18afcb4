"""Image files decoded batch by batch, in worker processes, ahead of the steps that use them."""

import signal
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltkd.data.image_files import ImageFiles
from ltkd.errors import UserError
from ltkd.machine import num_cores

AHEAD = 2  # batches that each worker may be ahead: torch's own number

Request = tuple[np.ndarray, np.ndarray | None]  # rows of a batch, and the seeds of their random resized crops


class FileLoader:
    """Batches of files in the order of requests, decoded by `workers` processes (0: in this one).

    At most workers * 2 batches wait here, beside the one in use. What a request gives depends on nothing but itself:
    the number of workers changes no pixel. smallest: share of the area of the crops that have seeds.
    """

    def __init__(self, files: ImageFiles, workers: int | Literal["auto"], smallest: float, *, pin: bool) -> None:
        self._requests = _Requests()
        workers = num_cores() if workers == "auto" else workers
        self._loader = DataLoader(
            _Reader(files, smallest),
            batch_sampler=self._requests,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=_prepare_worker,
            persistent_workers=workers > 0,
            prefetch_factor=AHEAD if workers else None,
            pin_memory=pin,
            generator=torch.Generator(),  # else it would draw from the global one
        )
        self._asked = 0

    def batches(self, requests: Sequence[Request]) -> Iterator[Tensor]:
        """uint8 [B, C, H, W] for each request. A new call ends the one before. UserError for a damaged file."""
        self._asked += 1
        number = self._asked
        self._requests.all = requests
        batches = iter(self._loader)
        for _ in requests:
            if number != self._asked:
                raise RuntimeError("these batches ended when others were asked for")
            yield _checked(_next(batches))


def _next(batches: Iterator) -> Tensor | str:
    try:
        return next(batches)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        what = "a process that decodes images ended (out of memory, or killed)"
        raise UserError(f"{what}; dataset.workers=0 decodes in the main process") from error


def _checked(batch: Tensor | str) -> Tensor:
    if isinstance(batch, str):
        raise UserError(batch)
    return batch


class _Requests:
    """The batches of an iteration, as torch's DataLoader asks for them; `all` is changed between iterations."""

    def __init__(self) -> None:
        self.all: Sequence[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)


class _Reader(Dataset):
    def __init__(self, files: ImageFiles, smallest: float) -> None:
        self._files, self._smallest = files, smallest

    def __getitems__(self, request: Request) -> Tensor | str:
        """A whole batch; the message of an error, which torch would wrap in a report of many lines."""
        rows, seeds = request
        crops = [None] * len(rows) if seeds is None else [(int(seed), self._smallest) for seed in seeds]
        try:
            return torch.from_numpy(self._files.read(rows, crops))
        except UserError as error:
            return str(error)


def _as_it_is(batch: Tensor | str) -> Tensor | str:
    return batch


def _prepare_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one ends the step and saves
    warnings.simplefilter("ignore")  # of odd metadata, where only an error matters
