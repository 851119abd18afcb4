"""One batch of images, as methods and losses see it."""

from dataclasses import dataclass

from torch import Tensor

from ltkd.ranks import Share, consecutive, even_parts


@dataclass
class Batch:
    images: Tensor  # [B, C, H, W] float32, normalised
    labels: Tensor  # [B] int64
    index: Tensor  # [B] int64, row in the data set
    second_view: Tensor | None = None  # [B, C, H, W], strongly augmented, where a method needs it; of all processes
    extra_logits: tuple[Tensor, ...] = ()  # [B, classes] each, of teachers beside the main one
    teacher_logits: Tensor | None = None  # [B, classes], where they were computed ahead of the step
    partner_labels: Tensor | None = None  # [B] int64, of the images that these are mixed with, where they are
    own_share: Tensor | None = None  # [] float32, of `labels` in the mixture; the rest is the partners'
    shares: tuple[Share, ...] = ()  # of each part of the whole batch, where several processes share it

    @property
    def num_images(self) -> int:
        """The images of the batch, of all processes that share it."""
        return sum(share.total for share in self.shares) if self.shares else len(self.labels)

    def parts(self, number: int) -> list["Batch"]:
        """The batch in `number` parts of about the same size, at least two images each, in its order.

        Where several processes share it, in the parts that its shares are of.
        """
        if not self.shares:
            parts = even_parts(len(self.labels), number)
            return [self._part(rows, rows) for rows in parts] if len(parts) > 1 else [self]
        own_slices = consecutive(share.rows.stop - share.rows.start for share in self.shares)
        whole_slices = consecutive(share.total for share in self.shares)
        return [
            self._part(own_rows, rows, (share,))
            for own_rows, rows, share in zip(own_slices, whole_slices, self.shares, strict=True)
        ]

    def _part(self, rows: slice, whole: slice, shares: tuple[Share, ...] = ()) -> "Batch":
        """The images at `rows` of a process's own, which are at `whole` in the batch of all processes."""

        def cut(tensor: Tensor | None, rows: slice = rows) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return Batch(
            cut(self.images), cut(self.labels), cut(self.index), cut(self.second_view, whole),
            tuple(map(cut, self.extra_logits)), cut(self.teacher_logits), cut(self.partner_labels), self.own_share,
            shares,
        )  # fmt: skip

    def accuracy(self, predicted: Tensor) -> Tensor:
        """Percentage of the predicted classes [B] that are right; a mixed image has two, by their shares."""
        own_accuracy = (predicted == self.labels).float().mean()
        if self.partner_labels is None:
            return 100 * own_accuracy
        partner_accuracy = (predicted == self.partner_labels).float().mean()
        return 100 * (self.own_share * own_accuracy + (1 - self.own_share) * partner_accuracy)
