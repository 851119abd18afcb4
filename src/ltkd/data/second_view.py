"""A second, strongly augmented view of each batch, for methods that compare two."""

import numpy as np
import torch
from torch import Tensor

from ltkd.data.batches import DeviceData
from ltkd.data.plan import EpochPlan
from ltkd.ranks import Ranks

# of RandAugment, arXiv:1909.13719, whose scale of magnitudes ends at 30
STRONG = {"name": "randaugment", "operations": 2, "magnitude": 10}


class SecondViews:
    """The batches of an epoch again: crop and flip of their own, as the data set has them, then RandAugment.

    A view is a function of the seed, the epoch and the place in it, so that a resumed epoch sees the same ones. Where
    several processes share a batch, each makes the views of the whole batch.
    """

    def __init__(self, data: DeviceData) -> None:
        crop = data.augmentation.resized_crop
        kind = {"name": "crop_flip"} if crop is None else {"name": "resized_crop_flip", "smallest": crop.smallest}
        self._data = data.shared_by(Ranks()).augmented([kind, STRONG])

    def start_epoch(self, plan: EpochPlan, seed: tuple[int, ...]) -> None:
        """Begin the epoch of `plan`, which says what image stands where; seed: of its own crops and operations."""
        number = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        self._plan = self._data.draw_epoch(torch.Generator().manual_seed(number), plan.permutation.cpu())

    def batch(self, step: int, batch_size: int) -> Tensor:
        """The view of the batch of 0-based `step`: [B, C, H, W], normalised as its images."""
        return self._data.batch(self._plan, step, batch_size).images
