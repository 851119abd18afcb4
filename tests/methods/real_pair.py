"""A method with its YAML settings for two real networks, untrained, and one step's terms."""

import copy
import dataclasses

import torch
from torch import Tensor

from ltkd.config.load import load_config
from ltkd.data import Batch
from ltkd.methods import Method, MethodContext, Networks, build_method
from ltkd.models import build_model
from ltkd.task_losses import build_task_loss

from ..conftest import compose_once


class Pair:
    """`method`, `context`, `student` (as the method adapts it), `teacher` and a `batch` of four images."""

    def __init__(
        self, name: str, teacher: str, student: str, *, num_classes: int = 10, size: int = 32, **settings
    ) -> None:
        torch.manual_seed(0)
        self.name, self.names = name, {"student_name": student, "teacher_name": teacher}
        self.teacher = build_model(teacher, num_classes).eval().requires_grad_(False)
        self.student = build_model(student, num_classes)
        # by names that need no installed YAML file; what it chooses by them does not matter here
        self.settings = (
            load_config(copy.deepcopy(compose_once("device=cpu", f"method={name}"))).method_arguments | settings
        )
        self.labels = torch.repeat_interleave(torch.arange(num_classes), torch.arange(num_classes, 0, -1) % 5 + 1)
        index = torch.tensor([0, 7, len(self.labels) - 1, 3])
        images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(6))
        self.batch = Batch(images, self.labels[index], index)
        self.context = self.new_context(num_classes)
        self.method = self.make_method(self.context)
        self.student = self.method.adapt_student(self.student).train()

    def make_method(self, context: MethodContext) -> Method:
        return build_method(self.name, self.settings, context, build_task_loss("ce", context.class_counts)).train()

    def new_context(self, num_classes: int, **networks) -> MethodContext:
        """From a dry forward pass of both networks as they are now."""
        self.student.eval()
        with torch.no_grad():
            student, teacher = (net(self.batch.images[:2], features=True) for net in (self.student, self.teacher))
        self.student.train()
        functions = Networks(
            student=self.student,
            teacher=self.teacher,
            student_classifier=self.student.classifier,
            teacher_classifier=self.teacher.classifier,
            teacher_norms=getattr(self.teacher, "preact_norms", None),
        )
        return MethodContext(
            num_classes=num_classes,
            class_counts=torch.bincount(self.labels, minlength=num_classes),
            groups=torch.zeros(num_classes, dtype=torch.int64),
            group_names=["all"],
            epochs=240,
            num_train=len(self.labels),
            batch_size=4,
            train_labels=self.labels,
            student=student,
            teacher=teacher,
            networks=dataclasses.replace(functions, **networks),
            **self.names,
        )

    def outputs(self):
        with torch.no_grad():
            teacher = self.teacher(self.batch.images, features=self.method.needs.stages)
        return self.student(self.batch.images, features=self.method.needs.stages), teacher

    def terms(self) -> dict[str, Tensor]:
        return self.method(*self.outputs(), self.batch)
