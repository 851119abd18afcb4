"""Average pooling to a given size, with the same bits from run to run on every device."""

import torch
import torch.nn.functional as F
from torch import Tensor


def average_pool(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Average-pools maps [B, C, H, W] to [B, C, h, w] as adaptive pooling does.

    Cell i is the mean of the rows from floor(i H / h) to ceil((i + 1) H / h), likewise of the columns. Where the cells
    overlap (H is no multiple of h), CUDA's gradient of torch's operation adds in any order, so that two equal runs
    differ in their last bits; there the two means are matrix products.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if maps.shape[2] % height == 0 and maps.shape[3] % width == 0:
        return F.adaptive_avg_pool2d(maps, (height, width))
    rows, columns = _means(maps.shape[2], height, maps), _means(maps.shape[3], width, maps)
    return rows @ maps @ columns.T


def _means(length: int, cells: int, like: Tensor) -> Tensor:
    """The matrix [cells, length] that takes the mean of each cell."""
    cell, place = torch.arange(cells, device=like.device)[:, None], torch.arange(length, device=like.device)
    inside = (place >= cell * length // cells) & (place < -(-(cell + 1) * length // cells))
    return inside.to(like.dtype) / inside.sum(1, keepdim=True)
