"""The steps of an epoch: positions in the epoch's order, of each batch and of a process's own part of it."""

from dataclasses import dataclass, field

import numpy as np

from ltkd.errors import UserError
from ltkd.ranks import Ranks, Share, even_parts


@dataclass(frozen=True)
class EpochSteps:
    """The steps of `images` images, `batch_size` at a time. Every image is used; a last short batch is kept.

    Except that BatchNorm cannot train on one image: a left-over single image joins the batch before it, which has then
    `batch_size` + 1 images. UserError when that is impossible.

    ranks: the processes that share each batch; parts: of a batch, at most, each of which they share; mixed: whether
    each image is mixed with the one before it in its batch, the first with the last.
    """

    images: int
    batch_size: int
    ranks: Ranks = field(default_factory=Ranks)
    parts: int = 1
    mixed: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise UserError(
                f"batch_size: {self.batch_size} must be at least 2, BatchNorm cannot train on single images"
            )
        if self.images < 2:
            raise UserError(f"dataset: {self.images} training image(s); BatchNorm needs at least 2")

    def __len__(self) -> int:
        return self.images // self.batch_size + (self.images % self.batch_size > 1)

    def batch(self, step: int) -> slice:
        """The positions that 0-based `step` uses. IndexError where there is no such step."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        start = step * self.batch_size
        return slice(start, self.images if step == len(self) - 1 else start + self.batch_size)

    def shares(self, step: int) -> tuple[Share, ...]:
        """This process's share of each part of the batch of 0-based `step`."""
        return tuple(self.ranks.share(part.stop - part.start) for part in self._parts(step))

    def own(self, step: int) -> list[slice]:
        """The positions that this process uses in 0-based `step`; alone, those of `batch`."""
        if self.ranks.alone:
            return [self.batch(step)]
        shares = zip(self._parts(step), self.shares(step), strict=True)
        return [slice(part.start + share.rows.start, part.start + share.rows.stop) for part, share in shares]

    def _parts(self, step: int) -> list[slice]:
        batch = self.batch(step)
        parts = even_parts(batch.stop - batch.start, self.parts)
        return [slice(batch.start + part.start, batch.start + part.stop) for part in parts]

    @property
    def has_partners(self) -> bool:
        """Whether an own image may be mixed with another process's."""
        return self.mixed and not self.ranks.alone

    def fetched(self, step: int) -> list[slice]:
        """The positions whose images this process cuts out for 0-based `step`: its own.

        Where `has_partners`, each slice comes behind one of the position that its first image is mixed with.
        """
        own_slices = self.own(step)
        if not self.has_partners:
            return own_slices
        batch = self.batch(step)
        before = [(batch.stop if part.start == batch.start else part.start) - 1 for part in own_slices]
        return [
            positions
            for part, partner in zip(own_slices, before, strict=True)
            for positions in (slice(partner, partner + 1), part)
        ]

    def own_in_epoch(self) -> np.ndarray:
        """The positions that this process uses in any step: bool [N]."""
        is_own = np.zeros(self.images, dtype=bool)
        for step in range(len(self)):
            for part in self.own(step):
                is_own[part] = True
        return is_own
