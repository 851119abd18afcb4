"""A whole distillation problem, small enough for float64 derivatives: two networks, a method, a batch."""

import copy
import functools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltkd.config.load import load_config
from ltkd.data import Batch
from ltkd.loop.whole_batch import on_all_processes
from ltkd.methods import Method, MethodContext, Networks, build_method, method_class
from ltkd.models.output import ModelOutput
from ltkd.ranks import Ranks
from ltkd.runs.build import run_at
from ltkd.task_losses import build_task_loss

from ..conftest import compose_once

NUM_CLASSES, BATCH_SIZE, SIDE = 6, 8, 8
CLASS_COUNTS = torch.tensor([100, 50, 25, 12, 6, 3])


class TinyNetwork(nn.Module):
    """Three stages of convolution, normalisation and activation, as every own network has; 8 x 8 grey pixels."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        channels = (1, *widths)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels[i], width, 3, 1 if i == 0 else 2, padding=1) for i, width in enumerate(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.classifier = nn.Linear(widths[-1], NUM_CLASSES)

    @property
    def preact_norms(self) -> list[nn.Module]:
        return list(self.norms)

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        stages, preactivations, x = [], [], images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            preactivation = norm(convolution(x))
            x = F.relu(preactivation)
            stages.append(x)
            preactivations.append(preactivation)
        embedding = x.mean(dim=(2, 3))
        logits = self.classifier(embedding)
        return (
            ModelOutput(logits, stages, preactivations, embedding)
            if features
            else ModelOutput(logits, None, None, embedding)
        )


class HeldOut:
    """As much of a `DeviceData` of held-out images as a method looks at."""

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(2)
        self.labels = torch.arange(2 * NUM_CLASSES) % NUM_CLASSES
        self._images = torch.randn(len(self.labels), 1, SIDE, SIDE, generator=generator, dtype=torch.float64).to(dtype)

    def whole(self, index: Tensor) -> Tensor:
        return self._images[index]


@dataclass
class Problem:
    method: Method
    student: nn.Module
    teacher: nn.Module
    batch: Batch

    def terms(self) -> dict[str, Tensor]:
        """One step's terms, with exactly what the method says that it needs."""
        needs, method = self.method.needs, self.method
        batch = replace(self.batch, images=self.batch.images.clone().requires_grad_(needs.input_gradients))
        teacher = None
        if needs.teacher:
            with torch.set_grad_enabled(needs.input_gradients):
                teacher = self.teacher(batch.images, features=needs.stages)
        if needs.teacher_logits_only:
            teacher = ModelOutput(teacher.logits)
        return method(self.student(batch.images, features=needs.stages), teacher, batch)

    def trainable(self) -> list[nn.Parameter]:
        return [p for module in (self.student, self.method) for p in module.parameters() if p.requires_grad]


def make_problem(name: str, *, same: bool = False, dtype: torch.dtype = torch.float64, **settings) -> Problem:
    """The method `name` with its YAML settings; `same`: student and teacher are equal networks in eval mode."""
    student, teacher = make_networks(same=same, dtype=dtype)
    method = method_of(name, student, teacher, **settings).to(dtype)
    student = method.adapt_student(student).to(dtype)
    method.train()
    method.start_epoch(1)
    generator = torch.Generator().manual_seed(1)
    images, second_view = torch.randn(2, BATCH_SIZE, 1, SIDE, SIDE, generator=generator, dtype=torch.float64).to(dtype)
    further = torch.randn(method_context_of(method).num_extra_teachers, BATCH_SIZE, NUM_CLASSES, generator=generator)
    batch = Batch(
        images,
        torch.tensor([0, 0, 0, 1, 1, 2, 3, 5]),
        torch.arange(BATCH_SIZE),
        second_view if method.needs.second_view else None,
        tuple(further.to(dtype)),
    )
    return Problem(method, student, teacher, batch)


def make_networks(*, same: bool = False, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    """Student, in training mode, and teacher."""
    torch.manual_seed(0)
    # wide enough that no small regressor between the two is dead from the start, all its ReLUs off
    teacher = TinyNetwork((6, 7, 8)).to(dtype).eval().requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_() if same else TinyNetwork((2, 3, 4)).to(dtype).train()
    for norm in (*teacher.norms, *student.norms):  # as after training: not all at 1 and 0
        norm.weight.data.copy_(torch.linspace(0.7, 1.5, len(norm.weight)))
        norm.bias.data.copy_(torch.linspace(-0.5, 0.5, len(norm.bias)))
    for network, scale in ((teacher, 6.0), (student, 6.0 if same else 3.0)):
        network.classifier.weight.data.mul_(scale)  # logits of a trained network's size
    return student, teacher


def method_of(name: str, student: nn.Module, teacher: nn.Module, **settings) -> Method:
    overrides = [f"method.{key}={'null' if value is None else value}" for key, value in settings.items()]
    values = load_config(copy.deepcopy(compose_once("device=cpu", f"method={name}", *overrides)))
    return build_tiny_method(
        name, values.method_arguments, student, teacher, len(values.extra_teachers), values.student.task_loss
    )


def build_tiny_method(
    name: str, arguments: dict, student: nn.Module, teacher: nn.Module, num_extra_teachers: int = 1, task_loss="ce",
    ranks: Ranks | None = None,
) -> Method:  # fmt: skip
    """The method with these settings between the two networks; nothing is composed."""
    ranks = ranks or Ranks()
    images = torch.randn(BATCH_SIZE, 1, SIDE, SIDE, dtype=student.classifier.weight.dtype)
    was_training = student.training
    student.eval()
    with torch.no_grad():
        outputs = student(images, features=True), teacher(images, features=True)
    student.train(was_training)
    trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
    context = MethodContext(
        num_classes=NUM_CLASSES,
        class_counts=CLASS_COUNTS,
        groups=torch.tensor([0, 0, 1, 1, 2, 2]),
        group_names=["head", "medium", "tail"],
        epochs=10,
        num_train=int(CLASS_COUNTS.sum()),
        batch_size=BATCH_SIZE,
        train_labels=torch.repeat_interleave(torch.arange(NUM_CLASSES), CLASS_COUNTS),
        student=outputs[0],
        teacher=outputs[1],
        networks=Networks(
            student=on_all_processes(ranks, lambda images, features=False: student(images, features=features)),
            teacher=on_all_processes(
                ranks, torch.no_grad()(lambda images, features=False: teacher(images, features=features))
            ),
            student_classifier=student.classifier,
            teacher_classifier=teacher.classifier,
            teacher_norms=teacher.preact_norms,
            student_at=functools.partial(run_at, student),
            student_parameters=trained,
        ),
        held_out=HeldOut(student.classifier.weight.dtype),
        learning_rate=lambda epoch: 0.1 / epoch,
        num_extra_teachers=num_extra_teachers,
        ranks=ranks,
    )
    method = build_method(name, arguments, context, build_task_loss(task_loss, CLASS_COUNTS))
    object.__setattr__(method, "_context_in_tests", context)
    return method


def method_context_of(method: Method) -> MethodContext:
    return method._context_in_tests


def uses_teacher(name: str) -> bool:
    return method_class(name).needs.teacher
