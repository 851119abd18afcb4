"""A second, strongly augmented view of each batch, for methods that compare two."""

import numpy as np
import torch
from torch import Tensor

from ltkd.data.batches import DeviceData
from ltkd.data.plan import EpochPlan

OPERATIONS, MAGNITUDE = 2, 10  # of RandAugment, arXiv:1909.13719, whose scale of magnitudes ends at 30


class SecondViews:
    """The batches of one epoch again: crop and flip of their own, as the data set has them, then RandAugment.

    torchvision augments image by image on the CPU, from the raw uint8 images: about a quarter of a millisecond each.
    One-channel images work: torchvision leaves them as they are where RandAugment draws "Color".
    A view is a function of `seed` and the step, so that a resumed epoch sees the same ones, whatever was drawn before;
    the global generator, from which torchvision draws, is as before afterwards.
    """

    def __init__(self, data: DeviceData, plan: EpochPlan, seed: tuple[int, ...]) -> None:
        from torchvision.transforms import v2  # takes a while to import, and few methods need it

        self._data = data
        self._rows = plan.permutation.cpu()
        self._seed = seed
        crop, size = data.augmentation.resized_crop, data.source.shape[2:]
        if crop is None:
            steps = [v2.RandomCrop(size, padding=data.crop_padding)]
        else:  # of the image as evaluation sees it
            steps = [v2.RandomResizedCrop(size, scale=(crop.smallest, 1.0), antialias=True)]
        if data.horizontal_flip:
            steps.append(v2.RandomHorizontalFlip())
        self._augment = v2.Compose([*steps, v2.RandAugment(OPERATIONS, MAGNITUDE)])

    def batch(self, step: int, batch_size: int) -> Tensor:
        """The view of the batch of 0-based `step`: [B, C, H, W], normalised as its images."""
        rows = self._rows[self._data.step_slice(step, batch_size)]
        images = self._data.raw(rows)
        seed = int(np.random.SeedSequence((*self._seed, step)).generate_state(1, np.uint64)[0])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the CUDA generators too
            return self._data.normalised(torch.stack([self._augment(image) for image in images]))
