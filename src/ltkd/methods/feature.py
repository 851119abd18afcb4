"""Methods that compare feature maps stage by stage.

Which stages are paired when the networks differ in their number, and what stands in for maps before an activation where
a network has none: `methods.stages`. Where heights differ the larger map is average-pooled to the smaller one's size.
"""

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.methods.network_features import before_activation, check_stages, pair_stages
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive


@register("fitnet")
class FitNet(Method):
    """task_weight * task + weight * mean (R(F_s) - F_t)^2 at one stage, F after the stage's activation.

    stage: counted from 1 over the paired stages; "middle" is the second of three or four, the third of five.
    R is a convolution, batch normalisation and ReLU. The convolution has stride 2 (3x3) where the student's map is
    twice as large, is transposed (4x4, stride 2) where it is half as large, and else shrinks it with a kernel of
    1 + H_s - H_t; a map that is smaller and not half as large is met by pooling the teacher's.
    The paper trains in two stages (the hint first, then KD); this is the single stage in which it is compared since.
    """

    paper = "Romero et al.: FitNets: Hints for Thin Deep Nets, arXiv:1412.6550"
    fidelity = "adapted"
    needs = Needs(stages=True)

    weight: NonNegative
    stage: Annotated[int, Ge(1)] | Literal["middle"]

    def build(self, context: MethodContext) -> None:
        check_stages(self.name, context)
        pairs = pair_stages(context.student.stages, context.teacher.stages)
        if self.stage != "middle" and self.stage > len(pairs):
            raise UserError(f"method.stage: should be at most {len(pairs)} (the paired stages), got {self.stage}")
        self.index = (len(pairs) - 1) // 2 if self.stage == "middle" else self.stage - 1
        self.regressor = _hint_regressor(*pairs[self.index])

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        student_map, teacher_map = pair_stages(student.stages, teacher.stages)[self.index]
        student_map, teacher_map = losses.to_common_size(self.regressor(student_map), teacher_map)
        return {"hint": self.weight * losses.mean_squared_error(student_map, teacher_map)}


def _hint_regressor(student_map: Tensor, teacher_map: Tensor) -> nn.Sequential:
    inputs, height, width = student_map.shape[1:]
    outputs, teacher_height, teacher_width = teacher_map.shape[1:]
    if (height, width) == (2 * teacher_height, 2 * teacher_width):
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    elif (2 * height, 2 * width) == (teacher_height, teacher_width):
        convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    else:
        kernel = (1 + max(height - teacher_height, 0), 1 + max(width - teacher_width, 0))
        convolution = nn.Conv2d(inputs, outputs, kernel)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


@register("at")
class AttentionTransfer(Method):
    """task_weight * task + weight * sum over the stages of `losses.attention_transfer`, after their activations."""

    paper = "Zagoruyko, Komodakis: Paying More Attention to Attention, arXiv:1612.03928"
    fidelity = "faithful"
    needs = Needs(stages=True)

    weight: NonNegative
    p: Annotated[float, Ge(1)]

    def build(self, context: MethodContext) -> None:
        check_stages(self.name, context)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        pairs = pair_stages(student.stages, teacher.stages)
        return {"attention": self.weight * sum(losses.attention_transfer(s, t, p=self.p) for s, t in pairs)}


@register("nst")
class NST(Method):
    """task_weight * task + weight * sum over the stages of `losses.nst`, after their activations."""

    paper = "Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, arXiv:1707.01219"
    fidelity = "faithful"
    needs = Needs(stages=True)

    weight: NonNegative

    def build(self, context: MethodContext) -> None:
        check_stages(self.name, context)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        pairs = pair_stages(student.stages, teacher.stages)
        return {"nst": self.weight * sum(losses.nst(s, t) for s, t in pairs)}


@register("vid")
class VID(Method):
    """task_weight * task + weight * sum over the stages of `losses.variational_information`, after their activations.

    The mean is predicted by three 1x1 convolutions without bias (ReLU between them), the log-scale of each teacher
    channel is trained from a variance of `init_variance` on. The term may be negative.
    """

    paper = "Ahn et al.: Variational Information Distillation for Knowledge Transfer, arXiv:1904.05835"
    fidelity = "faithful"
    needs = Needs(stages=True)

    weight: NonNegative
    init_variance: Positive
    eps: Positive

    def build(self, context: MethodContext) -> None:
        check_stages(self.name, context)
        if self.init_variance <= self.eps:
            raise UserError(
                f"method.init_variance: should be greater than method.eps ({self.eps}), got {self.init_variance}"
            )
        channels = [(s.shape[1], t.shape[1]) for s, t in pair_stages(context.student.stages, context.teacher.stages)]
        self.regressors = nn.ModuleList(_mean_regressor(*pair) for pair in channels)
        start = losses.vid_initial_log_scale(self.init_variance, self.eps)
        self.log_scales = nn.ParameterList(torch.full((outputs,), start) for _, outputs in channels)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        total = 0
        pairs = pair_stages(student.stages, teacher.stages)
        for pair, regressor, log_scale in zip(pairs, self.regressors, self.log_scales, strict=True):
            student_map, teacher_map = losses.to_common_size(*pair)
            mean = regressor(student_map)
            total = total + losses.variational_information(mean, teacher_map, log_scale, eps=self.eps)
        return {"vid": self.weight * total}


def _mean_regressor(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 1, bias=False),
    )


@register("ofd")
class OFD(Method):
    """task_weight * task + weight * sum over stages i = 1 .. n of 2^-(n - i) * `losses.ofd_partial_l2`.

    Maps before the activation. The student's goes through a 1x1 convolution and batch normalisation; the teacher's
    margins follow from the batch normalisation before its activation (in a residual block that of its residual, the
    sum with the shortcut left out, as the authors do). Where the teacher names none, each channel's margin is the mean
    of its negative values in the first training batch, 0 where it has none, and is kept from then on.
    The teacher stays in eval mode; the authors' is in training mode, which changes its running statistics.
    """

    paper = "Heo et al.: A Comprehensive Overhaul of Feature Distillation, arXiv:1904.01866"
    fidelity = "faithful"
    needs = Needs(stages=True)

    weight: NonNegative

    def build(self, context: MethodContext) -> None:
        check_stages(self.name, context, preact=("student", "teacher"))
        pairs = pair_stages(before_activation(context.student), before_activation(context.teacher))
        self.connectors = nn.ModuleList(_connector(s.shape[1], t.shape[1]) for s, t in pairs)
        # A norm says what lies before the activation: it is of no use where the maps are those after it.
        norms = context.networks.teacher_norms if context.teacher.preact_stages else None
        self.norms_known = [norm is not None for norm in (norms or [None] * len(pairs))[-len(pairs) :]]
        for index, (_, teacher_map) in enumerate(pairs):
            margin = torch.full((teacher_map.shape[1],), torch.nan)  # until the first batch
            if self.norms_known[index]:
                norm = norms[index - len(pairs)]
                margin = losses.ofd_margin(norm.weight, norm.bias)
            self.register_buffer(f"margin_{index}", margin)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        pairs = pair_stages(before_activation(student), before_activation(teacher))
        total = 0
        for index, (pair, connector) in enumerate(zip(pairs, self.connectors, strict=True)):
            student_map, teacher_map = losses.to_common_size(*pair)
            margin = self._margin(index, teacher_map)
            part = losses.ofd_partial_l2(connector(student_map), teacher_map, margin)
            total = total + 2.0 ** (index + 1 - len(pairs)) * part
        return {"ofd": self.weight * total}

    @torch.no_grad()
    def _margin(self, index: int, teacher_map: Tensor) -> Tensor:
        margin = getattr(self, f"margin_{index}")
        if self.norms_known[index]:
            return margin
        negative = teacher_map.float().clamp_max(0)
        total, number = self.ranks.sum([negative.sum(dim=(0, 2, 3)), (negative < 0).sum(dim=(0, 2, 3))])
        mean = total / number.clamp_min(1)
        known = torch.where(margin.isnan(), mean, margin)  # a tensor decides: the step must not wait for the device
        if self.training:
            margin.copy_(known)
        return known


def _connector(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
    nn.init.normal_(convolution.weight, std=(2 / outputs) ** 0.5)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
