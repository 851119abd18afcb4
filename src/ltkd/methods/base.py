"""What a method is: named loss terms, and what it needs from teacher and student.

A further method is a class below `Method` under `@register("name")`. Its keyword-only constructor parameters are its
YAML keys (conf/method/NAME.yaml), checked against their annotations; its `distill` is its equation. Parameters and
buffers of its own join the optimizer and the checkpoint because it is a module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from ltkd.data.batches import Batch
from ltkd.errors import unknown_name
from ltkd.methods.task import TaskLoss
from ltkd.models.output import ModelOutput

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]

_METHODS: dict[str, type["Method"]] = {}


@dataclass(frozen=True)
class Needs:
    """What the engine must provide beside the student's logits."""

    teacher: bool = True
    features: bool = False  # of teacher and student; logits alone can come from the teacher cache


@dataclass
class MethodContext:
    """What a method may know about data and networks when it is made."""

    num_classes: int
    class_counts: Tensor  # [C] training images per class
    groups: Tensor  # [C] int64, group id of each class
    group_names: list[str]
    epochs: int
    num_train: int
    student: ModelOutput | None = None  # of one dry forward pass: shapes
    teacher: ModelOutput | None = None


class Method(nn.Module):
    """The objective: task loss and distillation terms, each already weighted; the engine minimises their sum."""

    paper: ClassVar[str]
    needs: ClassVar[Needs] = Needs()
    needs_teacher_statistics: bool = False  # `prepare` wants the teacher's logits on the whole training set

    def __init__(
        self, context: MethodContext, task_loss: TaskLoss, *, task_weight: NonNegative, warmup_fraction: Fraction = 0.0
    ) -> None:
        super().__init__()
        self.task_loss = task_loss
        self.task_weight = task_weight
        self.warmup_epochs = round(warmup_fraction * context.epochs)
        # On the device, so that a captured training step sees each epoch's value; not saved: the epoch determines it.
        self.register_buffer("warmup", torch.tensor(self._warmup_at(1)), persistent=False)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        """The weighted distillation terms by name, before the warm-up."""
        raise NotImplementedError

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> dict[str, Tensor]:
        """All weighted terms by name; their sum is the objective. `teacher` is None where none is needed."""
        terms = {"task": self.task_weight * self.task_loss(student.logits, batch.labels)}
        if self.needs.teacher:
            terms |= {name: self.warmup * term for name, term in self.distill(student, teacher, batch).items()}
        return terms

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 1: the distillation terms grow linearly to 1 over
        the first `warmup_fraction` of all epochs."""
        self.warmup.fill_(self._warmup_at(epoch))
        self.task_loss.start_epoch(epoch)

    def prepare(self, teacher_logits: Tensor, labels: Tensor) -> None:
        """Called once before training where `needs_teacher_statistics`, with logits [N, C] and labels [N] of the
        training set."""

    def _warmup_at(self, epoch: int) -> float:
        return min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Class decorator: makes the class the method `name`."""

    def add(method: type[Method]) -> type[Method]:
        _METHODS[name] = method
        return method

    return add


def list_methods() -> list[str]:
    return sorted(_METHODS)


def method_class(name: str) -> type[Method]:
    """The class of that name. UserError if unknown."""
    if name not in _METHODS:
        raise unknown_name("method.name", name, _METHODS)
    return _METHODS[name]
