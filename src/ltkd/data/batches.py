"""Arrays to batches: the whole data set as uint8 on the device; crop and flip of a batch are one gather.

The gather reads a view that has every crop of every image as an element (`Tensor.unfold` copies nothing), and with
flips a mirrored copy of the images stands beside the first: of the simple ways (this one, index_select or take of
pixels, plain advanced indexing, flipping afterwards) the fastest on a CPU.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ltkd.data import operations
from ltkd.data.augmentation import Augmentation, build_augmentation, is_inside
from ltkd.data.batch import Batch
from ltkd.data.decoding import resized_crop
from ltkd.data.image_files import ImageFiles
from ltkd.data.plan import EpochPlan
from ltkd.data.steps import EpochSteps
from ltkd.ranks import Ranks, consecutive

AHEAD = 2**26  # bytes of pixels that get their operations together
MIXTURE = ("mix_weight", "mix_box", "mix_share")  # choices of a whole batch, which its first image says
BEFORE_THE_STEP = ("operations", "crop_seeds")  # choices that are used when a batch is fetched, on the CPU
FORWARD_BATCH = {"cpu": 64, "cuda": 512}  # images of a batch without gradients: on a CPU more of them leave its caches


class DeviceData:
    """A data set on the device, and its batches.

    images: uint8 [N, C, H, W]; labels: int64 [N]; mean, std: per channel, of pixel values in 0 .. 1. The raw image is
    padded with zeros before it is normalised, and values are equal bit for bit to torchvision's pad, crop, hflip,
    to_tensor and normalize. Float images have `memory_format` (channels-last by default). No call touches a global
    generator. None waits for the device, but for some of the operations of an augmentation.
    """

    on_device = True  # a crop needs nothing from elsewhere
    decodes = False  # what is read is decoded each time, and not a second time without need
    workers: int | Literal["auto"] = 0  # processes that decode
    augmentation = Augmentation()
    ranks = Ranks()  # the processes that share each batch
    parts = 1  # of a batch, at most, each of which they share

    def __init__(
        self,
        images: np.ndarray | Tensor | ImageFiles,
        labels: np.ndarray | Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        crop_padding: int = 0,
        horizontal_flip: bool = False,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.channels_last,
    ):
        # As given; no copy where it is an array.
        self.source = images if isinstance(images, ImageFiles) else torch.as_tensor(images)
        self.labels = torch.as_tensor(labels, dtype=torch.int64, device=device)
        self.device = self.labels.device
        self.crop_padding = crop_padding
        self.horizontal_flip = horizontal_flip
        self._memory_format = memory_format
        width = self.source.shape[3]
        # Whole pixel rows [W * C]: in the inner loop of a three-channel image a vector of three is slow.
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device).repeat(width)
        self._std = torch.tensor(std, dtype=torch.float32, device=device).repeat(width)
        # A tensor: division by a Python number is multiplication by its reciprocal on CUDA, which rounds differently.
        self._white = torch.tensor(255.0, device=device)
        self._store()

    def _store(self) -> None:
        """All crops of all images, on the device."""
        self._crops = self._all_crops(self.source.to(self.device))

    def _all_crops(self, images: Tensor) -> Tensor:
        """Element [row, mirrored, top, left] is the crop [H, W, C] of one of the images [N, C, H, W]; a view."""
        height, width = images.shape[2:]
        margin = (self.crop_padding,) * 2
        padded = pad(images.permute(0, 2, 3, 1), (0, 0, *margin, *margin)).contiguous()  # [N, H + 2p, W + 2p, C]
        del images  # a large data set is on the device as few times as possible
        variants = torch.stack([padded, padded.flip(2)] if self.horizontal_flip else [padded], dim=1)
        del padded
        return variants.unfold(2, height, 1).unfold(3, width, 1).permute(0, 1, 2, 3, 5, 6, 4)

    def _cut(self, index: Tensor, mirrored: Tensor, top: Tensor, left: Tensor) -> Tensor:
        """Crops [B, H, W, C]."""
        return self._crops[index, mirrored, top, left]

    def _whole(self, part: slice) -> Tensor:
        """Neither cropped nor mirrored [B, H, W, C]."""
        return self._crops[part, 0, self.crop_padding, self.crop_padding]

    def __len__(self) -> int:
        return len(self.labels)

    def augmented(self, choice: str | Sequence[Any]) -> "DeviceData":
        """The same images with another augmentation, a value of recipe.augmentation; nothing is copied."""
        return self._changed_in("augmentation", build_augmentation(choice))

    def shared_by(self, ranks: Ranks) -> "DeviceData":
        """The same images, of whose batches each process fetches its share; nothing is copied."""
        return self._changed_in("ranks", ranks)

    def in_parts(self, number: int) -> "DeviceData":
        """The same images, whose batches are shared part by part; nothing is copied."""
        return self._changed_in("parts", number)

    def _changed_in(self, name: str, value: Any) -> "DeviceData":
        data = copy.copy(self)
        setattr(data, name, value)
        return data

    def steps(self, batch_size: int) -> EpochSteps:
        """The steps of an epoch. UserError where BatchNorm cannot train on such batches."""
        return EpochSteps(len(self), batch_size, self.ranks, self.parts, mixed=bool(self.augmentation.mixing))

    def draw_epoch(self, generator: torch.Generator, order: Tensor | None = None) -> EpochPlan:
        """Draws an epoch's order, crops, flips and whatever `augmentation` adds, and moves them to the data's device.

        A CPU generator gives the same plan on every device. order [N]: rows of the data set that a sampler drew before,
        some perhaps repeatedly and some not; by default every row once.
        """
        options = {"generator": generator, "device": generator.device}
        permutation = torch.randperm(len(self), **options) if order is None else order
        offsets_y, offsets_x = torch.randint(0, 2 * self.crop_padding + 1, (2, len(self)), **options)
        flips = torch.randint(0, 1 + self.horizontal_flip, (len(self),), **options).bool()
        plan = EpochPlan(*(choice.to(self.device) for choice in (permutation, offsets_y, offsets_x, flips)))
        if self.augmentation.is_crop_flip:
            return plan
        # A generator whose stream never changes, and that has the distributions.
        random = np.random.RandomState(torch.randint(2**32, (), **options).item())
        drawn = self.augmentation.draw(len(self), self.size, random)
        return replace(plan, drawn={name: self._placed(name, choice) for name, choice in drawn.items()})

    def _placed(self, name: str, choice: Tensor) -> Tensor:
        """The choices of what the host does stay on the CPU."""
        return choice if name in BEFORE_THE_STEP else choice.to(self.device)

    def batch(self, plan: EpochPlan, step: int, batch_size: int) -> Batch:
        """The augmented batch of 0-based `step`."""
        return self.batch_of(self.fetch(plan, step, batch_size))

    def fetch(self, plan: EpochPlan, step: int, batch_size: int) -> EpochPlan:
        """The choices of 0-based `step`, with the images where these are not simply cut out on the device.

        Where several processes share the batch, those of the own images.
        """
        part = self._choices(plan, step, batch_size)
        if "crop_seeds" in part.drawn:
            return self._with_pixels(part, self._changed(self._resized(part), part))
        if not self.on_device:
            return self._with_pixels(part, self._changed(self._cut_out(part), part))
        if "operations" in part.drawn:
            return self._with_pixels(part, self._changed_ahead(plan, step, batch_size))
        return part

    def _choices(self, plan: EpochPlan, step: int, batch_size: int) -> EpochPlan:
        """The choices for the images to cut out; how they are mixed is said by the first image of the whole batch."""
        steps = self.steps(batch_size)
        slices = steps.fetched(step)
        part = plan.take_all(slices)
        if not steps.has_partners:
            return part
        first = steps.batch(step).start
        mixture = {name: plan.drawn[name][first].expand_as(part.drawn[name]) for name in MIXTURE}
        own_rows = consecutive(positions.stop - positions.start for positions in slices)[1::2]
        return replace(part, drawn={**part.drawn, **mixture}, own=tuple(own_rows))

    def _with_pixels(self, part: EpochPlan, crops: Tensor) -> EpochPlan:
        """The choices that are left for the step when the crops [B, H, W, C] have had their operations."""
        drawn = {name: choice for name, choice in part.drawn.items() if name not in BEFORE_THE_STEP}
        return replace(part, drawn=drawn, pixels=crops)

    def _changed(self, crops: Tensor, part: EpochPlan) -> Tensor:
        """The crops [B, H, W, C] after their operations, where there are any."""
        if "operations" not in part.drawn:
            return crops
        table = self.augmentation.operations.table(self.size)
        images = operations.apply(crops.permute(0, 3, 1, 2), part.drawn["operations"], table)
        return images.permute(0, 2, 3, 1).contiguous()

    def _changed_ahead(self, plan: EpochPlan, step: int, batch_size: int) -> Tensor:
        """The crops [B, H, W, C] of `step` after their operations, from those that wait in the plan.

        Where they do not, they are made together with those of the next steps: an operation on thousands of images
        takes as many launches as on one.
        """
        if (self, step, batch_size) not in plan.ahead:
            plan.ahead.clear()  # their memory, before more is taken
            epoch = self.steps(batch_size)
            steps = range(step, min(step + self.steps_ahead(batch_size), len(epoch)))
            slices = [epoch.fetched(number) for number in steps]
            part = plan.take_all([positions for step_slices in slices for positions in step_slices])
            crops = self._changed(self._cut_out(part), part).split(list(map(_num_positions, slices)))
            plan.ahead.update(zip([(self, number, batch_size) for number in steps], crops, strict=True))
        return plan.ahead.pop((self, step, batch_size))

    def steps_ahead(self, batch_size: int) -> int:
        """Number of steps, at most, whose operations are carried out together."""
        if self.augmentation.operations is None or self.augmentation.resized_crop is not None or not self.on_device:
            return 1
        number = _num_positions(self.steps(batch_size).fetched(0))
        return max(1, AHEAD // (number * self.source.shape[1:].numel()))

    def _resized(self, part: EpochPlan) -> Tensor:
        """Random resized crops [B, H, W, C]: image by image on the CPU, each of another size."""
        rows, smallest = part.permutation.tolist(), self.augmentation.resized_crop.smallest
        crops = [
            resized_crop(to_pil(self.source[row]), size=self.size, seed=seed, smallest=smallest)
            for row, seed in zip(rows, part.drawn["crop_seeds"].tolist(), strict=True)
        ]
        crops = to_device(torch.from_numpy(np.stack(crops)), self.device).reshape(len(rows), self.size, self.size, -1)
        return flipped(crops, part.flips)

    def batch_of(self, part: EpochPlan) -> Batch:
        """The augmented batch of all choices in `part`, as `fetch` returns them."""
        crops, drawn = self._cut_out(part) if part.pixels is None else part.pixels, part.drawn
        if "cutout" in drawn:
            crops = crops.masked_fill(is_inside(drawn["cutout"], self.size)[..., None], 0)
        batch = Batch(self._normalise(crops), self.labels[part.permutation], part.permutation)
        if "mix_weight" in drawn:
            self._mix(batch, drawn["mix_weight"][0], drawn["mix_box"][:1], drawn["mix_share"][0])
            if part.own:
                names = ("images", "labels", "index", "partner_labels")
                batch = replace(
                    batch, **{name: torch.cat([getattr(batch, name)[rows] for rows in part.own]) for name in names}
                )
        return batch

    def _mix(self, batch: Batch, weight: Tensor, box: Tensor, share: Tensor) -> None:
        """Mixes each image with its neighbour in the batch, as torchvision does: the order is random as it is."""
        images, partners = batch.images, batch.images.roll(1, 0)
        blended = partners * (1 - weight) + images * weight
        mixed = torch.where(is_inside(box, self.size)[:, None], partners, blended)
        batch.images = mixed.contiguous(memory_format=self._memory_format)
        batch.partner_labels, batch.own_share = batch.labels.roll(1), share

    @property
    def size(self) -> int:
        """Pixels per side."""
        return self.source.shape[3]

    @property
    def num_views(self) -> int:
        """Number of views of one image: every crop, mirrored and not."""
        return (2 * self.crop_padding + 1) ** 2 * (1 + self.horizontal_flip)

    def view_numbers(self, plan: EpochPlan) -> Tensor:
        """Each choice as one number in 0 .. len(self) * num_views - 1; the views of an image come together."""
        side = 2 * self.crop_padding + 1
        return ((plan.permutation * (1 + self.horizontal_flip) + plan.flips) * side + plan.offsets_y) * side + (
            plan.offsets_x
        )

    def plan_of_views(self, numbers: Tensor) -> EpochPlan:
        """The choices with these `view_numbers`."""
        side = 2 * self.crop_padding + 1
        numbers = numbers.to(self.device)
        image, flip = numbers // self.num_views, numbers // side**2 % (1 + self.horizontal_flip)
        return EpochPlan(image, numbers // side % side, numbers % side, flip.bool())

    def views(self, index: Tensor, offsets_y: Tensor, offsets_x: Tensor, flips: Tensor) -> Tensor:
        """Augmented images [B, C, H, W] of rows `index` [B].

        Offsets [B] are in 0 .. 2 * crop_padding; flips [B] are bool, all False unless `horizontal_flip`.
        """
        return self._normalise(self._cut_out(EpochPlan(index, offsets_y, offsets_x, flips)))

    def whole(self, index: Tensor) -> Tensor:
        """Images [B, C, H, W] of rows `index` [B], neither cropped nor flipped."""
        middle = torch.full_like(index, self.crop_padding)
        return self.views(index, middle, middle, torch.zeros_like(index, dtype=torch.bool))

    def _cut_out(self, part: EpochPlan) -> Tensor:
        """The crops [B, H, W, C]."""
        # The mirror image of a crop is the crop of the mirror image at the same distance from the other edge.
        left = torch.where(part.flips, 2 * self.crop_padding - part.offsets_x, part.offsets_x)
        return self._cut(part.permutation, part.flips.long(), part.offsets_y, left)

    def raw(self, rows: Tensor) -> Tensor:
        """The images of some rows as they are, uint8 [B, C, H, W] on the CPU."""
        return self.source[rows.to(self.source.device)].cpu()

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W], on any device, as the images of a batch are."""
        return self._normalise(to_device(images, self.device).permute(0, 2, 3, 1).contiguous())

    @property
    def forward_batch(self) -> int:
        """Number of images to take at a time where no gradient is computed."""
        return FORWARD_BATCH[self.device.type]

    def evaluation_batches(self, batch_size: int | None = None, rows: slice = slice(None)) -> Iterator[Batch]:
        """All images, or some rows, in their order, neither cropped nor flipped; the last batch may be short."""
        for part in self._parts(batch_size or self.forward_batch, rows):
            crops = self._whole(part)
            index = torch.arange(part.start, part.stop, device=self.device)
            yield Batch(self._normalise(crops), self.labels[part], index)

    def _parts(self, batch_size: int, rows: slice) -> list[slice]:
        start, stop, _ = rows.indices(len(self))
        return [slice(first, min(first + batch_size, stop)) for first in range(start, stop, batch_size)]

    def _normalise(self, crops: Tensor) -> Tensor:
        rows = crops.flatten(2).to(torch.float32)  # [B, H, W * C]
        rows.div_(self._white).sub_(self._mean).div_(self._std)
        return rows.view(crops.shape).permute(0, 3, 1, 2).contiguous(memory_format=self._memory_format)


def _num_positions(slices: Sequence[slice]) -> int:
    return sum(positions.stop - positions.start for positions in slices)


def flipped(crops: Tensor, flips: Tensor) -> Tensor:
    """[B, H, W, C], mirrored where `flips` [B] says so."""
    return torch.where(flips[:, None, None, None], crops.flip(2), crops)


def to_pil(image: Tensor):
    """uint8 [C, H, W] as a picture."""
    from PIL import Image

    pixels = image.cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor there; a copy to a GPU does not wait for it."""
    from_cpu_to_gpu = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory().to(device, non_blocking=True) if from_cpu_to_gpu else tensor.to(device)
