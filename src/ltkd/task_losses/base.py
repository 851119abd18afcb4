"""The task loss on the labels: a choice of its own, which any method combines with.

A new one is a class below `TaskLoss` under `@register_task_loss("name")`: its annotated attributes are its settings
(see `ltkd.settings`), and `start_epoch` is where a deferred one changes its weights.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from ltkd import losses
from ltkd.choices import look_up, name_and_settings
from ltkd.errors import UserError
from ltkd.ranges import Fraction, NonNegative
from ltkd.settings import Settings
from ltkd.task_losses.class_counts import check_every_class

_TASK_LOSSES: dict[str, type["TaskLoss"]] = {}


class TaskLoss(Settings, nn.Module):
    """A loss on labels: `forward(logits [B, C], labels [B])` is a mean over the batch."""

    needs_every_class: ClassVar[bool] = False  # uses class priors, which are 0 for a class without training images
    corrects_prior: ClassVar[bool] = False  # makes up for class counts, as a sampler that evens them out does too
    softmax_logits: ClassVar[bool] = True  # the logits are made for a softmax, as distillation reads them
    takes_mixed_labels: ClassVar[bool] = True  # share * L(y) + (1 - share) * L(y') is a loss of a mixed image
    reads_batch = False  # a mean over more than the images, by weights for example: as Method.reads_batch
    replaces_classifier: ClassVar[bool] = False  # the network's linear classifier gives way to another kind

    def __init__(self, class_counts: Tensor, **settings: Any) -> None:
        super().__init__(**settings)
        self.register_buffer("class_counts", class_counts.clone(), persistent=False)
        if self.needs_every_class:
            check_every_class(f"task_loss: {type(self).__name__}", class_counts, remedy="task_loss=ce")
        self.build()

    def build(self) -> None:
        """Make the loss's own buffers; the settings and `class_counts` are set. UserError where they do not fit."""

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch, counted from 1, of `epochs`."""

    def adapt_network(self, model: nn.Module) -> None:
        """Change a new network in place to what this loss is made for: a cosine classifier, a bias that starts low."""

    def network_parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The network's trainable parameters as groups of the optimizer; a group may have its own weight_decay."""
        return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]


def register_task_loss(name: str) -> Callable[[type[TaskLoss]], type[TaskLoss]]:
    """Class decorator: makes the class the task loss `name`."""

    def add(task_loss: type[TaskLoss]) -> type[TaskLoss]:
        _TASK_LOSSES[name] = task_loss
        return task_loss

    return add


def list_task_losses() -> list[str]:
    return sorted(_TASK_LOSSES)


def task_loss_class(name: str) -> type[TaskLoss]:
    """The class of that name; its constructor takes class counts and the loss's own settings. UserError if unknown."""
    return look_up("task_loss", name, _TASK_LOSSES)


def build_task_loss(choice: str | Mapping[str, Any], class_counts: Tensor) -> TaskLoss:
    """The task loss for a name or {name: ..., its settings}; class_counts [C] are training images per class.

    Raises UserError for an unknown name, and for class priors that a class without images makes impossible.
    """
    name, settings = name_and_settings(choice)
    if name is None:
        raise UserError(f"task_loss: should be a name or {{name: ..., settings}}, got {choice!r}")
    return task_loss_class(name)(class_counts, **settings)


@register_task_loss("ce")
class CrossEntropy(TaskLoss):
    """Plain cross-entropy."""

    label_smoothing: Fraction = 0.0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return losses.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


@register_task_loss("balanced_softmax")
class BalancedSoftmax(TaskLoss):
    """Balanced softmax, arXiv:2007.10740. At test time the logits are used as they are."""

    needs_every_class = True
    corrects_prior = True

    label_smoothing: Fraction = 0.0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return losses.balanced_softmax(logits, labels, self.class_counts, label_smoothing=self.label_smoothing)


@register_task_loss("logit_adjusted")
class LogitAdjusted(TaskLoss):
    """Logit-adjusted cross-entropy, arXiv:2007.07314; tau 1 is the theory's value and equals the balanced softmax."""

    needs_every_class = True
    corrects_prior = True

    tau: NonNegative = 1.0
    label_smoothing: Fraction = 0.0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        return losses.logit_adjusted(logits, labels, self.class_counts, tau=self.tau, label_smoothing=smoothing)
