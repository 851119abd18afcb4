"""xERM: each image learns from the balanced teacher or from its label, by which of the two serves it."""

from typing import ClassVar

from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative
from ltkd.task_losses.class_counts import check_every_class


@register("xerm")
class XERM(Method):
    """task_weight * task + weight * mean_b [w_b CE(softmax(t - log pi), s) + (1 - w_b) CE(y, s)], T = 1.

    w_b = b^gamma / (b^gamma + l^gamma + 1e-5), b and l the teacher's cross-entropies on the label with and without the
    correction: near 1 on head images, near 0 on tail images; logged as soft_label_share, by group too.
    The equation is the public code's (its PC form). There, teacher and student are of one architecture and the student
    starts from the teacher's weights: student.start=teacher, which is not the default.
    The teacher is to be trained with plain cross-entropy: the correction is made here.
    """

    reads_labels = True
    paper = (
        "Zhu et al.: Cross-Domain Empirical Risk Minimization for Unbiased Long-tailed Classification, "
        "arXiv:2112.14380 (AAAI 2022)"
    )
    fidelity = "adapted"
    made_for: ClassVar = {"teacher.task_loss": "ce", "teacher.recipe.sampling": "instance"}

    weight: NonNegative
    gamma: NonNegative

    def build(self, context: MethodContext) -> None:
        check_every_class(f"method.name: {self.name}", context.class_counts, remedy="another method")
        self.register_buffer("class_counts", context.class_counts.clone(), persistent=False)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        of_teacher = (teacher.logits, batch.labels, self.class_counts)
        self.record("soft_label_share", losses.xerm_weights(*of_teacher, gamma=self.gamma), batch.labels)
        return {"xerm": self.weight * losses.xerm(student.logits, *of_teacher, gamma=self.gamma)}
