"""CAT-KD: where in the image each class is seen."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.methods.network_features import check_classifier_on_last_map, check_stages
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative


@register("catkd")
class CATKD(Method):
    """task_weight * task + weight * `losses.class_attention` of the last maps, after the activation.

    Both classifiers must be linear and work on the mean of that map. Class activation maps leave the bias out: the
    teacher's is ignored, the student's is fixed at 0 (so that it is trained without one, while its file of weights
    still fits the plain network). Gradient reaches the student's map and its classifier's weight.
    """

    paper = "Guo et al.: Class Attention Transfer Based Knowledge Distillation, arXiv:2304.12777 (CVPR 2023)"
    fidelity = "faithful"
    needs = Needs(stages=True)

    weight: NonNegative
    resolution: Annotated[int, Ge(1)]
    normalise: bool

    def build(self, context: MethodContext) -> None:
        check_stages(self.name, context, last_only=True)
        check_classifier_on_last_map(self.name, context, roles=("student", "teacher"))
        self.networks = context.networks  # no module: the classifiers stay their networks' own

    def adapt_student(self, model: nn.Module) -> nn.Module:
        bias = model.classifier.bias
        if bias is not None:
            nn.init.zeros_(bias)
            bias.requires_grad_(False)
        return model

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        value = losses.class_attention(
            student.stages[-1],
            teacher.stages[-1],
            self.networks.student_classifier.weight,
            self.networks.teacher_classifier.weight,
            resolution=self.resolution,
            normalise=self.normalise,
        )
        return {"class_attention": self.weight * value}
