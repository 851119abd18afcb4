"""Gradients with respect to the images, aligned with the teacher's."""

from typing import Literal

from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, Needs, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive


@register("kdiga")
class KDIGA(Method):
    """task_weight * task + kd_weight * KD + gradient_weight * mean_b || dCE(z_s, y)/dx - dCE(z_t, y)/dx ||_2.

    For handing an adversarially robust teacher's robustness on; the result has the accuracy under attack. The paper's
    norm (l2 or its square) and weights could not be confirmed: the norm is a setting, the weights are a choice.

    Gradients are with respect to normalised pixels. The student's batch normalisation is in training mode and couples
    the images: an image's gradient is then that of all images' losses. The teacher's, in eval mode, is its own.
    Cost: the student is differentiated twice and the teacher once, and their activations are kept meanwhile.
    With precision.autocast=bfloat16 the gradients pass through bfloat16 layers; prefer float32.
    """

    reads_labels = True
    paper = (
        "Shao, Yi, Chen, Hsieh: How and When Adversarial Robustness Transfers in Knowledge Distillation?, "
        "arXiv:2110.12072"
    )
    fidelity = "inspired"
    needs = Needs(input_gradients=True)
    reports_robustness = True

    kd_weight: NonNegative
    temperature: Positive
    gradient_weight: NonNegative
    norm: Literal["l2", "squared"]

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        alignment = losses.input_gradient_alignment(
            student.logits, teacher.logits, batch.labels, batch.images, squared=self.norm == "squared"
        )
        return {
            "kd": self.kd_weight * losses.kd(student.logits, teacher.logits, temperature=self.temperature),
            "gradient": self.gradient_weight * alignment,
        }
