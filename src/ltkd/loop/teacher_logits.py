"""Computes a teacher's logits for the batches of an epoch ahead of the steps that use them.

Where a method asks for nothing but the teacher's logits on the batch, the teacher need not run in the step. It runs in
batches of one constant size, so that the same kernels see every image, whoever its neighbours are; what a
`TeacherCache` has is not computed at all. A network whose logits of an image change with the other images of its batch
gets no cache: that would let a number depend on which run came first. So a cache changes speed and nothing else.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

from ltkd.config.schema import Cache
from ltkd.data import DeviceData, EpochPlan
from ltkd.data.batches import to_device
from ltkd.errors import UserError
from ltkd.loop.interrupt import Interrupted
from ltkd.loop.progress import shown_as
from ltkd.loop.resident_logits import ResidentLogits, resident_logits
from ltkd.loop.teacher_cache import TeacherCache, record_type
from ltkd.loop.turns import take_lock, turns
from ltkd.ranks import Ranks
from ltkd.results.files import RunFiles

logger = logging.getLogger(__name__)

WINDOW = 4096  # images whose logits are on the device at a time
FILL_BLOCK = 16384  # entries between two looks at what is there
MAX_SILENCE = 60  # seconds between two lines of a fill without a bar
FILL_SHARE = 0.75  # of all views: a run that needs at least these has them all computed before it starts


class TeacherLogits:
    """The logits of one teacher along the epochs of a training.

    model: in eval mode, on the data's device. storage: "float32", or "float16", which rounds them, cached or not.
    """

    def __init__(
        self,
        model: nn.Module,
        data: DeviceData,
        autocast: Callable[[], AbstractContextManager],
        *,
        num_classes: int,
        storage: str = "float32",
    ) -> None:
        self._model, self._data, self._autocast = model, data, autocast
        self.num_classes, self.storage = num_classes, storage
        self.batch_size = data.forward_batch
        self.cache: TeacherCache | None = None
        self.resident: ResidentLogits | None = None  # all that the cache has
        self._plan: EpochPlan | None = None

    # ------------------------------------------------------------------------------------------------ along an epoch

    def start_epoch(self, plan: EpochPlan, own: np.ndarray | None = None) -> None:
        """Begin an epoch. own: bool [N], the positions that will be asked for, where it is not all."""
        self._plan = plan
        numbers = self._data.view_numbers(plan)
        if self.resident is not None:
            self.resident.start_epoch()
            self._numbers = numbers
            return
        self._own = np.ones(len(plan.permutation), dtype=bool) if own is None else own
        self._end = 1 + int(np.flatnonzero(self._own)[-1])  # of the last part
        self._entries = numbers.cpu().numpy()  # the one wait for the device of an epoch
        self._window = slice(0, 0)

    def rows(self, part: slice, choices: EpochPlan | None = None) -> Tensor:
        """Float32 logits [B, C] of the images at these positions of the epoch. Parts must come in ascending order.

        choices: of the part. Images that were decoded for it are not decoded again, unless a cache keeps the logits.
        """
        if self.resident is not None:
            return self.resident.rows(self._numbers[part])
        if self.cache is None and self._data.decodes and choices is not None:
            starts = range(0, part.stop - part.start, self.batch_size)
            return torch.cat([self._forward(choices.take(slice(start, start + self.batch_size))) for start in starts])
        if part.stop > self._window.stop:
            self._store()
            self._open_window(part)
        while self._next < len(self._missing) and self._missing[self._next] < part.stop:
            self._compute(self._missing[self._next : self._next + self.batch_size])
            self._next += self.batch_size
        if part.stop >= self._end:
            self._store()
        return self._table[part.start - self._window.start : part.stop - self._window.start]

    def _open_window(self, part: slice) -> None:
        self._window = slice(part.start, min(max(part.start + WINDOW, part.stop), len(self._entries)))
        entries, device = self._entries[self._window], self._data.device
        if self.cache is None:
            self._table = torch.empty(len(entries), self.num_classes, device=device)
            is_cached = np.zeros(len(entries), dtype=bool)
        else:
            logits, is_cached = self.cache.read(entries)
            self._table = to_device(torch.from_numpy(logits.astype(np.float32)), device)
        wanted = ~is_cached & self._own[self._window]
        self._missing = self._window.start + np.flatnonzero(wanted)  # positions of the epoch
        self._next = 0

    def _compute(self, positions: np.ndarray) -> None:
        where = to_device(torch.from_numpy(positions), self._data.device)
        self._table[where - self._window.start] = self._forward(self._plan.take(where))

    def _store(self) -> None:
        """Writes what was computed in the window to the cache."""
        if self.cache is None or self._window.stop == 0 or not self._next:
            return
        computed = self._missing[: self._next] - self._window.start
        self._missing, self._next = self._missing[self._next :], 0
        rows = self._table[torch.from_numpy(computed).to(self._table.device)].cpu().numpy()
        self._write(self._entries[self._window][computed], rows)

    def _write(self, entries: np.ndarray, rows: np.ndarray) -> None:
        try:
            self.cache.write(entries, rows)
        except OSError as error:
            logger.warning("teacher logits are no longer kept: %s (%s)", error.strerror, self.cache.folder)
            self.cache = None

    # --------------------------------------------------------------------------------------------- the teacher itself

    @torch.no_grad()
    def _forward(self, plan: EpochPlan) -> Tensor:
        """Logits [K, C] of the K <= batch size views in `plan`, always computed as one full batch."""
        number = len(plan.permutation)
        if number < self.batch_size:
            repeat = torch.arange(self.batch_size, device=self._data.device) % number
            plan = plan.take(repeat)
        with self._autocast():
            logits = self._model(self._data.batch_of(plan).images).logits
        return logits[:number].to(getattr(torch, self.storage)).float()

    def probe(self) -> tuple[str, bool]:
        """Return a hash of the logits that this machine computes, and True if an image's logits ignore its neighbours.

        The hash covers weights, precision, threads, kernels and the machine at once, as far as they change a bit of
        one batch of images from all over the data set.
        """
        size, total = self.batch_size, self.num_entries
        entries = torch.arange(size) * total // size  # spread over images and, as they divide, over views
        other_entries = (entries + total // 2) % total
        first = self._forward(self._data.plan_of_views(entries))
        # the second half of the batch, now at the front and in reverse, beside other images
        mixed = torch.cat((entries[size // 2 :].flip(0), other_entries[: size // 2]))
        second = self._forward(self._data.plan_of_views(mixed))
        same = torch.equal(first[size // 2 :].flip(0), second[: size - size // 2])
        return hashlib.sha256(first.cpu().numpy().tobytes()).hexdigest(), same

    @property
    def device(self) -> torch.device:
        return self._data.device

    @property
    def ranks(self) -> Ranks:
        return self._data.ranks

    @property
    def num_views(self) -> int:
        return self._data.num_views

    @property
    def num_entries(self) -> int:
        return len(self._data) * self.num_views

    # ------------------------------------------------------------------------------------------------------ the cache

    def fill(self, label: str, progress: str) -> None:
        """Compute every entry that the cache lacks; of several processes each fills every so many blocks.

        Raises Interrupted when the trainings of this process are to stop: the next fill goes on from there.
        """
        progress, ranks = shown_as(progress), self._data.ranks
        start = last_line = time.monotonic()
        computed = 0
        blocks = [
            np.arange(first, min(first + FILL_BLOCK, self.num_entries))
            for first in range(0, self.num_entries, FILL_BLOCK)[ranks.rank :: ranks.size]
        ]
        with tqdm(
            total=sum(map(len, blocks)),
            desc=f"{label}: logits of all views",
            leave=False,
            disable=progress != "bar",
            dynamic_ncols=True,
            unit="view",
            unit_scale=True,
        ) as bar:
            for entries in blocks:
                missing = entries[~self.cache.read(entries)[1]]
                for begin in range(0, len(missing), self.batch_size):
                    if signal := turns().signal:  # no step comes here that looks at it
                        raise Interrupted(signal)
                    batch = missing[begin : begin + self.batch_size]
                    self._write(batch, self._forward(self._data.plan_of_views(torch.from_numpy(batch))).cpu().numpy())
                    if self.cache is None:
                        break
                    bar.update(len(batch))
                if self.cache is None:
                    break
                bar.update(len(entries) - len(missing))
                computed += len(missing)
                if progress == "lines" and time.monotonic() - last_line > MAX_SILENCE:
                    last_line = time.monotonic()
                    logger.info("%s: logits of %.0f %% of all views", label, 100 * entries[-1] / self.num_entries)
        if not all(ranks.gather_objects(self.cache is not None)):
            return
        ranks.from_first(self.cache.mark_complete)
        if computed:
            logger.info("%s: %d views in %.0f s", label, computed, time.monotonic() - start)


def expected_share(num_views: int, epochs: int) -> float:
    """The share of an image's views that `epochs` uniform draws are expected to meet."""
    return 1 - (1 - 1 / num_views) ** epochs


@dataclass(frozen=True)
class CachePlan:
    """The decision about the cache of one teacher, and the reason in words."""

    mode: Literal["fill", "lazy", "live"]
    reason: str


def plan_cache(settings: Cache, *, num_entries: int, num_views: int, num_classes: int, epochs: int) -> CachePlan:
    """Decide by arithmetic alone. The number of students to come is not known, so this run decides.

    Computing views when they are needed never costs more than a live teacher, and what this run computes the next one
    finds. Computing all at once costs this run the views that it would not have met: at most a third more than it
    needs where it needs `FILL_SHARE` of them, and no later student waits for the teacher.
    """
    if settings.mode == "off":
        return CachePlan("live", "cache.mode=off")
    gigabytes = num_entries * record_type(num_classes, settings.storage).itemsize / 1e9
    if gigabytes > settings.max_gigabytes:
        limit = f"cache.max_gigabytes={settings.max_gigabytes:g}"
        return CachePlan("live", f"its logits of all {num_entries} views would take {gigabytes:.1f} GB, {limit}")
    share = expected_share(num_views, epochs)
    mode = settings.mode
    if mode == "auto":
        mode = "fill" if share >= FILL_SHARE else "lazy"
    views = f"{num_entries:,} crops and flips of the images ({1000 * gigabytes:,.1f} MB)"
    reason = f"{epochs} epochs meet about {100 * share:.0f} % of the {views}"
    return CachePlan(mode, reason)


def use_cache(
    logits: TeacherLogits, *, label: str, directory: Path, about: dict[str, Any], settings: Cache, epochs: int,
    progress: str,
) -> None:  # fmt: skip
    """Give `logits` a cache below the teacher's `directory`, where that is worth it, for a training of `epochs`.

    about: what identifies data, augmentation and teacher. One line says what was chosen; filling takes its time here.
    """
    ranks = logits.ranks
    shape = {"num_entries": logits.num_entries, "num_classes": logits.num_classes}
    plan = plan_cache(settings, num_views=logits.num_views, epochs=epochs, **shape)
    if plan.mode == "live":
        logger.info("%s: computed anew in every epoch (%s)", label, plan.reason)
        return
    probes = ranks.gather_objects(logits.probe())
    fingerprint, ignores_neighbours = probes[0]
    if len(set(probes)) > 1:
        logger.info("%s: computed anew in every epoch (the processes' machines differ in its last digits)", label)
        return
    if not ignores_neighbours:
        reason = "its logits of an image depend on the batch around it"
        logger.warning("%s: no cache, computed anew in every epoch (%s)", label, reason)
        return
    about = about | {"batch": logits.batch_size, "probe": fingerprint}
    try:
        with ranks.in_turn():  # the first makes the files
            logits.cache = TeacherCache(RunFiles(directory).logits, about, **shape, dtype=logits.storage)
    except UserError as error:
        logger.warning("%s; %s is computed anew in every epoch", error, label)
    if not all(ranks.gather_objects(logits.cache is not None)):
        logits.cache = None
        return
    cache = logits.cache
    if ranks.from_first(lambda: cache.is_complete):
        logger.info("%s: its logits of all views are in %s", label, cache.folder)
    elif plan.mode == "fill":
        logger.info("%s: %s: its logits of all are computed now and kept", label, plan.reason)
        with contextlib.ExitStack() as held:  # one run computes, those that wait read

            def acquire() -> None:
                lock = FileLock(cache.folder / "fill.lock")
                take_lock(lock)
                held.callback(lock.release)

            ranks.from_first(acquire)
            if not ranks.from_first(lambda: cache.is_complete):
                logits.fill(label, progress)
    else:
        logger.info("%s: %s: its logits of each are computed when first needed and kept", label, plan.reason)
    if logits.cache is not None:  # a full disk ends it
        logits.resident = resident_logits(logits.cache, logits.device)
