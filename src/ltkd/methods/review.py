"""ReviewKD: each stage of the student, fused with all deeper ones, meets the teacher's stage."""

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.methods.network_features import before_activation, check_embeddings, check_stages, pair_stages
from ltkd.models.output import ModelOutput
from ltkd.ranges import Fraction, NonNegative


@register("reviewkd")
class ReviewKD(Method):
    """task_weight * task + warm-up * weight * sum over the levels of `losses.hcl`.

    Levels: the paired stages and, deepest, the pooled vector as a map of one pixel. The student's levels go through
    attention-based fusion from the deepest to the shallowest. Teacher: maps before the activation; student: after it
    (student_maps "post") or before ("pre").
    Fusion works in min(max_mid_channels, length of the student's pooled vector) channels.
    """

    paper = "Chen et al.: Distilling Knowledge via Knowledge Review, arXiv:2104.09044"
    fidelity = "faithful"
    needs = Needs(stages=True, embedding=True)

    weight: NonNegative
    warmup_fraction: Fraction
    max_mid_channels: Annotated[int, Ge(1)]
    student_maps: Literal["post", "pre"]

    def build(self, context: MethodContext) -> None:
        check_stages(self.name, context, preact=("teacher",) if self.student_maps == "post" else ("student", "teacher"))
        check_embeddings(self.name, context)
        levels = self._levels(context.student, context.teacher)
        mid_channels = min(self.max_mid_channels, context.student.embedding.shape[1])
        self.fusions = nn.ModuleList(
            Fusion(student.shape[1], mid_channels, teacher.shape[1], fuse=depth > 0)
            for depth, (student, teacher) in enumerate(levels)
        )

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        total, passed_on = 0, None
        for (student_map, teacher_map), fusion in zip(self._levels(student, teacher), self.fusions, strict=True):
            reviewed, passed_on = fusion(student_map, passed_on, teacher_map.shape[2:])
            total = total + losses.hcl(reviewed, teacher_map)
        return {"review": self.weight * total}

    def _levels(self, student: ModelOutput, teacher: ModelOutput) -> list[tuple[Tensor, Tensor]]:
        """(student's, teacher's) maps, deepest first."""
        pooled = student.embedding[:, :, None, None], teacher.embedding[:, :, None, None]
        student_maps = student.stages if self.student_maps == "post" else before_activation(student)
        return [pooled, *reversed(pair_stages(student_maps, before_activation(teacher)))]


class Fusion(nn.Module):
    """Attention-based fusion of one level with what the deeper one passed on.

    x = BN(conv1x1(student)) with mid_channels; fused with the deeper level's x (`losses.abf_fuse`), where there is one;
    resized (nearest) to the teacher's size and passed on. Compared with the teacher's map: BN(conv3x3(x)).
    """

    def __init__(self, inputs: int, mid_channels: int, outputs: int, *, fuse: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, mid_channels, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(mid_channels)
        self.attention = nn.Conv2d(2 * mid_channels, 2, 1) if fuse else None
        self.expand = nn.Conv2d(mid_channels, outputs, 3, padding=1, bias=False)
        self.expand_norm = nn.BatchNorm2d(outputs)
        for convolution in (self.reduce, self.expand):
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, student_map: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        x = self.reduce_norm(self.reduce(student_map))
        if self.attention is not None:
            x = losses.abf_fuse(x, deeper, self.attention.weight.flatten(1), self.attention.bias)
        if x.shape[2:] != size:
            x = F.interpolate(x, size=size, mode="nearest")
        return self.expand_norm(self.expand(x)), x
