"""A training's network, objective, data and recipe."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from ltkd.config.schema import Recipe
from ltkd.data import DeviceData, LongTailSplit, Sampler
from ltkd.loop.teacher_logits import TeacherLogits
from ltkd.losses import ClassGroups
from ltkd.methods import Method
from ltkd.ranks import Ranks


@dataclass(frozen=True)
class Training:
    """All that a Trainer needs. Modules are on `device`."""

    label: str  # "teacher resnet20": what the user sees
    identity: str  # hash; a checkpoint of another identity is refused
    model: nn.Module
    method: Method
    teacher: nn.Module | None  # in eval mode, without gradients
    extra_teachers: list[nn.Module]  # as the teacher
    teacher_logits: TeacherLogits | None  # the teacher's logits ahead of the steps, where the method needs no more
    extra_logits: list[TeacherLogits]  # of each extra teacher
    train: DeviceData
    test: DeviceData
    validation: DeviceData | None
    split: LongTailSplit
    groups: ClassGroups  # split.groups, laid out on the device
    recipe: Recipe
    sampler: Sampler  # of the recipe
    seed: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager]
    evaluate_every: int
    progress: str
    step: str = "auto"  # run.step of the configuration
    frozen_features: bool = False  # the network stays in eval mode; what of it is trained has requires_grad

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self.train.ranks

    @property
    def held_out(self) -> dict[str, DeviceData]:
        """The test part and then, where there is one, the validation split."""
        return {"test": self.test} | ({} if self.validation is None else {"validation": self.validation})

    @property
    def precomputed_logits(self) -> list[TeacherLogits]:
        return [*([] if self.teacher_logits is None else [self.teacher_logits]), *self.extra_logits]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train.steps(self.recipe.batch_size))
