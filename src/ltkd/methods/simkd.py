"""SimKD: the student learns the teacher's last map and is deployed with the teacher's classifier."""

import copy
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.losses.pooling import average_pool
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.methods.network_features import check_classifier_on_last_map, check_stages
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative


@register("simkd")
class SimKD(Method):
    """task_weight * task + weight * mean (R(F_s) - F_t)^2 of the last maps, after the activation.

    The network that is trained and deployed is the student without its own classifier, the projector R and a frozen
    copy of the teacher's classifier: larger than the student, and counted as it is. Where heights differ the student's
    larger map is pooled before R, the teacher's before the comparison. The teacher's classifier passes its bias for the
    head classes on as it is; logit adjustment at test time works on it as on any other.
    """

    paper = "Chen et al.: Knowledge Distillation with the Reused Teacher Classifier, arXiv:2203.14001"
    fidelity = "faithful"
    needs = Needs(stages=True)
    keeps_classifier = False

    weight: NonNegative
    reduction: Annotated[int, Ge(1)]

    def build(self, context: MethodContext) -> None:
        check_stages(self.name, context, last_only=True)
        check_classifier_on_last_map(self.name, context, roles=("teacher",), linear=False)
        student_map, teacher_map = context.student.stages[-1], context.teacher.stages[-1]
        self.shapes = student_map.shape[1], *teacher_map.shape[1:]
        self.mid_channels = teacher_map.shape[1] // self.reduction
        if self.mid_channels == 0:
            message = f"should be at most the channels of the teacher's last map ({teacher_map.shape[1]})"
            raise UserError(f"method.reduction: {message}, got {self.reduction}")
        self.networks = context.networks  # no module: the classifier stays the teacher's own

    def adapt_student(self, model: nn.Module) -> nn.Module:
        student_channels, teacher_channels, height, width = self.shapes
        projector = make_projector(student_channels, self.mid_channels, teacher_channels)
        classifier = _copy_without_hooks(self.networks.teacher_classifier).requires_grad_(False)
        return ReusedClassifier(model, projector, classifier, largest_map=(height, width))

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        maps = losses.to_common_size(student.stages[-1], teacher.stages[-1])
        return {"projection": self.weight * losses.mean_squared_error(*maps)}


def _copy_without_hooks(module: nn.Module) -> nn.Module:
    """A deep copy. Hooks on the original belong to its network, which would be copied with them."""
    shell = copy.copy(module)
    shell._forward_pre_hooks = type(module._forward_pre_hooks)()
    return copy.deepcopy(shell)


def make_projector(inputs: int, mid_channels: int, outputs: int) -> nn.Sequential:
    """1x1, 3x3 and 1x1 convolution without bias, each with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, mid_channels, 1, bias=False),
        nn.BatchNorm2d(mid_channels),
        nn.ReLU(),
        nn.Conv2d(mid_channels, mid_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(mid_channels),
        nn.ReLU(),
        nn.Conv2d(mid_channels, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class ReusedClassifier(nn.Module):
    """`backbone` without its own classifier, the projector on its last map, and the teacher's classifier.

    The last of `stages` is the projected map; its mean is the embedding that `classifier` sees. There are no
    preact_stages. A last map larger than `largest_map` is average-pooled to it before the projector.
    """

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, classifier: nn.Module, *, largest_map: tuple[int, int]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.classifier = classifier
        self.largest_map = largest_map
        own_classifier = getattr(backbone, "classifier", None)
        if own_classifier is not None:
            name = next(name for name, module in backbone.named_modules() if module is own_classifier)
            backbone.set_submodule(name, nn.Identity())

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        stages = self.backbone(images, features=True).stages
        last = stages[-1]
        size = min(last.shape[2], self.largest_map[0]), min(last.shape[3], self.largest_map[1])
        projected = self.projector(last if last.shape[2:] == size else average_pool(last, size))
        embedding = projected.mean(dim=(2, 3))
        logits = self.classifier(embedding)
        return ModelOutput(logits, [*stages[:-1], projected] if features else None, None, embedding)
