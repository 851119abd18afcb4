"""A method: named loss terms, and what it needs from teacher and student.

A new method is a class below `Method` under `@register("name")`. Its annotated attributes are its settings, the keys of
conf/method/NAME.yaml (see `ltkd.settings`); `build` makes its parameters and buffers and checks that it fits the data
and the networks; `distill` is its equation. Parameters and buffers join the optimizer and the checkpoint because it is
a module.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ltkd.choices import look_up
from ltkd.data.batch import Batch
from ltkd.data.batches import DeviceData
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative
from ltkd.ranks import Ranks
from ltkd.settings import Settings
from ltkd.task_losses import TaskLoss

FIDELITY = {  # of a method to its paper; every method states one
    "faithful": "equation and settings of the paper or its code",
    "adapted": "carried over from language models or another task, or with changes or settings of our own",
    "inspired": "made from an abstract or a note; what they leave open is our choice",
}

_METHODS: dict[str, type["Method"]] = {}


@dataclass(frozen=True)
class Needs:
    """The inputs of a method beside the student's logits and the teacher's on the same images."""

    teacher: bool = True
    stages: bool = False  # feature maps of both, `stages` and `preact_stages`
    embedding: bool = False  # the pooled vectors of both
    input_gradients: bool = False  # a graph from both networks' logits back to batch.images
    second_view: bool = False  # batch.second_view: the batch's images strongly augmented
    networks: bool = False  # runs a network on images of its own, through context.networks
    mixed_images: bool = False  # makes these of batch.images of the whole batch
    held_out: bool = False  # trains on the validation split's images too, context.held_out

    @property
    def teacher_logits_only(self) -> bool:
        """The teacher's logits on the batch are all that is asked of it: they can come from a cache."""
        live = self.stages or self.embedding or self.input_gradients or self.second_view or self.networks
        return self.teacher and not live


@dataclass(frozen=True)
class Networks:
    """The networks as functions (images, features=False) -> ModelOutput, for methods that run them on other images.

    Functions and not modules: a method must not own, train or save a network that is not its own. The student runs as
    it is (in training mode while it trains, with gradients), the teacher in eval mode without gradients. Both are
    called in the engine's autocast. The classifiers, for reading their weights, are None where no single layer makes
    the logits.
    """

    student: Callable[..., ModelOutput]
    teacher: Callable[..., ModelOutput]
    student_classifier: nn.Module | None
    teacher_classifier: nn.Module | None
    # the student with other parameters, student_at(parameters, images), which changes nothing of it; and its own
    student_at: Callable[[Mapping[str, Tensor], Tensor], ModelOutput] | None = None
    student_parameters: Mapping[str, nn.Parameter] = field(default_factory=dict)
    # the batch normalisation before each stage's last activation, None where there is none or the network does not say
    teacher_norms: Sequence[nn.BatchNorm2d | None] | None = None


@dataclass
class MethodContext:
    """The facts about data and networks that a method may use when it is made."""

    num_classes: int
    class_counts: Tensor  # [C] training images per class
    groups: Tensor | None  # [C] int64, group id of each class; in `build` only for a method that `reads_groups`
    group_names: list[str]  # empty in `build` of other methods
    epochs: int
    num_train: int
    batch_size: int = 0
    train_labels: Tensor | None = None  # [N] int64, in the order of batch.index
    student: ModelOutput | None = None  # of one dry forward pass with features: shapes
    teacher: ModelOutput | None = None
    networks: Networks | None = None  # student and teacher; None where no teacher is needed
    held_out: DeviceData | None = None  # the validation split's images, where there is one
    learning_rate: Callable[[int], float] | None = None  # of an epoch, counted from 1
    drawn: Callable[[int], Tensor] | None = None  # of an epoch, from 1: share of each class [C]; None: each image once
    num_extra_teachers: int = 0  # entries of batch.extra_logits
    ranks: Ranks = field(default_factory=Ranks)  # the processes that train together
    student_name: str = "student"  # for messages
    teacher_name: str = "teacher"


class Method(Settings, nn.Module):
    """The objective: task loss and distillation terms, each already weighted; the engine minimises their sum."""

    name: ClassVar[str]  # in the registry
    paper: ClassVar[str]
    fidelity: ClassVar[str]  # a key of FIDELITY
    needs: ClassVar[Needs] = Needs()
    made_for: ClassVar[Mapping[str, str]] = {}  # {"teacher.task_loss": "ce"}; compatibility.py warns of another
    reads_labels: ClassVar[bool] = False  # beside the task loss: each image's one label or row, which a mixture lacks
    keeps_classifier: ClassVar[bool] = True  # the student is deployed with its own, whatever `adapt_student` does
    needs_teacher_statistics = False  # `prepare` wants the teacher's logits on the whole training set
    # Every step gives the device the same work: no value is read from it, no choice and no shape depends on one, and
    # what changes from epoch to epoch is in buffers, changed in place. Then a GPU runs the step as one captured graph.
    capturable: ClassVar[bool] = True
    # A term is more than a mean over the images of something of each: it reads the batch as a whole, counts its images
    # or draws random numbers. Where several processes share a batch, each then computes the terms of all images.
    reads_batch = False
    one_process: ClassVar[str] = ""  # why several processes cannot share its batches
    learns_once_a_step: ClassVar[bool] = False  # more than parameters by gradient and buffers changes in `forward`
    reports_robustness: ClassVar[bool] = False  # the accuracy under attack belongs to its result

    task_weight: NonNegative
    warmup_fraction = 0.0  # a method with a warm-up makes it a setting: `warmup_fraction: Fraction`

    def __init__(self, context: MethodContext, task_loss: TaskLoss, **settings: Any) -> None:
        super().__init__(**settings)
        self.task_loss = task_loss
        self.ranks = context.ranks
        self.epochs = context.epochs
        self.warmup_epochs = round(self.warmup_fraction * context.epochs)
        # On the device, so that a captured training step sees each epoch's value; not saved: the epoch determines it.
        self.register_buffer("warmup", torch.tensor(self._warmup_at(1)), persistent=False)
        self.register_buffer("_group_of_class", context.groups.clone(), persistent=False)
        self._num_groups = len(context.group_names)
        self.figures: dict[str, Tensor] = {}  # of the latest batch, see `record`
        self.build(context if self.reads_groups(settings) else replace(context, groups=None, group_names=[]))

    @classmethod
    def reads_groups(cls, settings: Mapping[str, Any]) -> bool:
        """True where `build` needs context.groups, the data set's groups, with these settings.

        Else the runs of two policies are one run, whose accuracies are reported for the groups that are asked for.
        """
        return False

    def build(self, context: MethodContext) -> None:
        """Make the method's own parameters and buffers; the settings and `self.task_loss` are set already.

        UserError where the method cannot work with these data, networks or settings.
        """

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        """The weighted distillation terms by name, before the warm-up."""
        raise NotImplementedError

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> dict[str, Tensor]:
        """All weighted terms by name; their sum is the objective. `teacher` is None where none is needed."""
        terms = {"task": self.task_weight * self.task_term(student.logits, batch)}
        if self.needs.teacher:
            terms |= {name: self.warmup * term for name, term in self.distill(student, teacher, batch).items()}
        return terms

    def task_term(self, logits: Tensor, batch: Batch) -> Tensor:
        """The task loss; of mixed images share * L(z, y) + (1 - share) * L(z, y_partner), with one share for all."""
        loss = self.task_loss(logits, batch.labels)
        if batch.partner_labels is None:
            return loss
        return batch.own_share * loss + (1 - batch.own_share) * self.task_loss(logits, batch.partner_labels)

    @torch.no_grad()
    def record(self, name: str, values: Tensor, labels: Tensor) -> None:
        """Have a figure of each image (values [B]) logged: its mean over the epoch, in all and by the labels' group."""
        groups = torch.arange(self._num_groups, device=labels.device)
        member = (self._group_of_class[labels].unsqueeze(1) == groups).float()  # F.one_hot would look at the values
        totals = (values.float().unsqueeze(1) * member).sum(0)  # no matrix product, which autocast would round
        self.figures[name] = torch.stack((totals, member.sum(0)), dim=1)  # [G, 2]: sum, images

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 1: the distillation terms grow linearly to 1 over
        the first `warmup_fraction` of all epochs."""
        self.warmup.fill_(self._warmup_at(epoch))
        self.task_loss.start_epoch(epoch, self.epochs)

    def end_epoch(self, model: nn.Module) -> None:
        """Called after each epoch, before the checkpoint is written, with the network that is trained."""

    def prepare(self, teacher_logits: Tensor, labels: Tensor) -> None:
        """Called once before training where `needs_teacher_statistics`, with logits [N, C] and labels [N] of the
        training set."""

    @classmethod
    def extra_teachers(
        cls, teacher: Mapping[str, Any], student: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Teachers beside the main one, each as what differs from it: [{"seed": 1}], [{"name": student["name"]}].

        teacher, student: the configuration's sections; arguments: the method's settings. The engine finds or trains
        them in the teacher store and hands their logits on the batch over as `batch.extra_logits`, in this order.
        """
        return []

    def adapt_student(self, model: nn.Module) -> nn.Module:
        """The network that is trained, evaluated and deployed: the student, or a network made of it (SimKD)."""
        return model

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The method's own parameters as groups of the optimizer. A group may have its own weight_decay, momentum and
        `learning_rate_factor`, by which the recipe's learning rate is multiplied."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def _warmup_at(self, epoch: int) -> float:
        return min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Class decorator: makes the class the method `name`. TypeError unless the class itself has paper and fidelity."""

    def add(method: type[Method]) -> type[Method]:
        if not vars(method).get("paper"):
            raise TypeError(f"method {name}: {method.__name__}.paper is missing; it says where the method is from")
        if vars(method).get("fidelity") not in FIDELITY:
            choices = "; ".join(f"{key!r} ({meaning})" for key, meaning in FIDELITY.items())
            raise TypeError(f"method {name}: {method.__name__}.fidelity should be one of {choices}")
        _METHODS[name] = method
        method.name = name
        return method

    return add


def list_methods() -> list[str]:
    return sorted(_METHODS)


def method_class(name: str) -> type[Method]:
    """The class of that name. UserError if unknown."""
    return look_up("method.name", name, _METHODS)
