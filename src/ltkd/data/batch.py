"""One batch of images, as methods and losses see it."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ltkd.ranks import Share


@dataclass
class Batch:
    images: Tensor  # [B, C, H, W] float32, normalised
    labels: Tensor  # [B] int64
    index: Tensor  # [B] int64, row in the data set
    second_view: Tensor | None = None  # [B, C, H, W], strongly augmented, where a method needs it
    extra_logits: tuple[Tensor, ...] = ()  # [B, classes] each, of teachers beside the main one
    teacher_logits: Tensor | None = None  # [B, classes], where they were computed ahead of the step
    partner_labels: Tensor | None = None  # [B] int64, of the images that these are mixed with, where they are
    own_share: Tensor | None = None  # [] float32, of `labels` in the mixture; the rest is the partners'
    share: Share | None = None  # of the whole batch, where several processes share it

    @property
    def num_images(self) -> int:
        """The images of the batch, of all processes that share it."""
        return len(self.labels) if self.share is None else self.share.total

    def parts(self, number: int) -> list["Batch"]:
        """The batch in `number` parts of about the same size, at least two images each, in its order."""
        number = max(1, min(number, len(self.labels) // 2))
        if number == 1:
            return [self]
        ends = [len(self.labels) * part // number for part in range(number + 1)]
        return [self._part(slice(start, end)) for start, end in pairwise(ends)]

    def _part(self, rows: slice) -> "Batch":
        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return Batch(
            cut(self.images), cut(self.labels), cut(self.index), cut(self.second_view),
            tuple(map(cut, self.extra_logits)), cut(self.teacher_logits), cut(self.partner_labels), self.own_share,
        )  # fmt: skip

    def accuracy(self, predicted: Tensor) -> Tensor:
        """Percentage of the predicted classes [B] that are right; a mixed image has two, by their shares."""
        own = (predicted == self.labels).float().mean()
        if self.partner_labels is None:
            return 100 * own
        partner = (predicted == self.partner_labels).float().mean()
        return 100 * (self.own_share * own + (1 - self.own_share) * partner)
