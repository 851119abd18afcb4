"""CTKD: a temperature that is learnt against the student."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ltkd.data.batch import Batch
from ltkd.losses import kd_per_image
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import Fraction, NonNegative, Positive

HIDDEN_UNITS = 128  # of the network that gives each image its temperature


@register("ctkd")
class CTKD(Method):
    """task_weight * task + weight * mean_b tau_b^2 * KL at tau_b, with tau = start + span * sigmoid(theta).

    theta is learnt by the optimizer of the student, under the same learning rate and weight decay, but its gradient is
    multiplied by lambda <= 0: it makes the task harder for the student. lambda falls from 0 to -1 along a cosine over
    the first `curriculum_fraction` of the epochs. The factor tau^2 is part of what theta sees. tau is logged.

    theta_of: "all" images, one parameter (the paper's global version), or each "image", the output of a perceptron on
    both networks' logits (the instance-wise version; its hidden width and the detached inputs are our choice).
    """

    paper = "Li et al.: Curriculum Temperature for Knowledge Distillation, arXiv:2211.16231"
    fidelity = "faithful"

    weight: NonNegative
    start: Positive
    span: NonNegative
    initial_theta: float
    curriculum_fraction: Fraction
    theta_of: Literal["all", "image"]

    def build(self, context: MethodContext) -> None:
        self.curriculum_epochs = round(self.curriculum_fraction * context.epochs)
        if self.theta_of == "all":
            self.theta = nn.Parameter(torch.tensor([float(self.initial_theta)]))
        else:
            last = nn.Linear(HIDDEN_UNITS, 1)
            nn.init.constant_(last.bias, self.initial_theta)
            self.theta = nn.Sequential(nn.Linear(2 * context.num_classes, HIDDEN_UNITS), nn.ReLU(), last)
        self.register_buffer("reversal", torch.tensor(self.reversal_at(1)), persistent=False)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        temperature = self.temperature(student.logits, teacher.logits)
        self.record("temperature", temperature.flatten().expand(len(batch.labels)), batch.labels)
        loss = kd_per_image(student.logits, teacher.logits, temperature=temperature)
        return {"ctkd": self.weight * loss.mean()}

    def temperature(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """tau, [1] or [B, 1]; the gradient that reaches theta is reversed."""
        theta = self.theta
        if isinstance(theta, nn.Sequential):
            theta = theta(torch.cat((student_logits, teacher_logits), dim=1).detach()).float()
        return self.start + self.span * _Reversal.apply(theta, self.reversal).sigmoid()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self.reversal.fill_(self.reversal_at(epoch))

    def reversal_at(self, epoch: int) -> float:
        """lambda in an epoch, counted from 1."""
        progress = min(epoch / self.curriculum_epochs, 1.0) if self.curriculum_epochs else 1.0
        return (math.cos(math.pi * progress) - 1) / 2


class _Reversal(torch.autograd.Function):
    """The identity; its gradient is multiplied by `factor` (a tensor, so that a captured step sees each epoch's)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return factor * gradient, None
