"""The other images of the batch that an image is mixed or compared with. Random, by torch's global generator, on the
labels' device and without waiting for it."""

from typing import Literal

import torch
from torch import Tensor

Partner = Literal["permutation", "class_balanced"]


def draw_partners(labels: Tensor, number: int, partner: Partner) -> Tensor:
    """Positions in the batch [B, number] of each image's partners; labels [B].

    permutation: a random cycle through the batch; an image's partners are the next ones on it. So each is the
    partner of `number` others, and none is its own while the batch is larger than `number`.
    class_balanced: drawn with replacement, first a class of those in the batch, all alike, then one of its images. A
    class that the batch lacks cannot be drawn: how often the tail is there still depends on the batch size.
    """
    if partner == "class_balanced":
        images_of_class = (labels.unsqueeze(1) == labels).sum(dim=1)
        upper_edges = (1 / images_of_class).cumsum(dim=0)
        draws = torch.rand(len(labels), number, device=labels.device) * upper_edges[-1]
        # rounding may put the last draw on the last edge
        return torch.searchsorted(upper_edges, draws, right=True).clamp_max(len(labels) - 1)
    cycle = torch.rand(len(labels), device=labels.device).argsort()
    following = torch.stack([cycle.roll(-step) for step in range(1, number + 1)], dim=1)
    return torch.empty_like(following).index_copy(0, cycle, following)
