"""xERM: each image learns from the balanced teacher or from its label, by which of the two serves it."""

import logging
from typing import ClassVar

from torch import Tensor

from ltkd import losses
from ltkd.data.batches import Batch
from ltkd.methods.base import Method, MethodContext, register
from ltkd.methods.class_counts import check_every_class
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative
from ltkd.task_losses import TaskLoss
from ltkd.task_losses.base import CrossEntropy

logger = logging.getLogger(__name__)


@register("xerm")
class XERM(Method):
    """task_weight * task + weight * mean_b [w_b CE(softmax(t - log pi), s) + (1 - w_b) CE(y, s)], T = 1. Adapted.

    w_b = b^gamma / (b^gamma + l^gamma + 1e-5), b and l the teacher's cross-entropies on the label with and without the
    correction: near 1 on head images, near 0 on tail images; logged as soft_label_share, by group too.
    The equation is the public code's (its PC form). There, teacher and student are of one architecture and the student
    starts from the teacher's weights; here it starts anew, as every student of a table does.
    The teacher is to be trained with plain cross-entropy: the correction is made here.
    """

    reads_labels = True
    paper = (
        "Zhu et al.: Cross-Domain Empirical Risk Minimization for Unbiased Long-tailed Classification, "
        "arXiv:2112.14380 (AAAI 2022)"
    )
    made_for_task_losses: ClassVar = {"teacher": "ce"}

    def __init__(
        self,
        context: MethodContext,
        task_loss: TaskLoss,
        *,
        task_weight: NonNegative,
        weight: NonNegative,
        gamma: NonNegative,
    ) -> None:
        super().__init__(context, task_loss, task_weight=task_weight)
        check_every_class(self.name, context)
        if task_weight == 0 and not isinstance(task_loss, CrossEntropy):
            logger.warning("student.task_loss has no effect with method.task_weight=0")
        self.weight = weight
        self.gamma = gamma
        self.register_buffer("class_counts", context.class_counts.clone(), persistent=False)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        of_teacher = (teacher.logits, batch.labels, self.class_counts)
        self.record("soft_label_share", losses.xerm_weights(*of_teacher, gamma=self.gamma), batch.labels)
        return {"xerm": self.weight * losses.xerm(student.logits, *of_teacher, gamma=self.gamma)}
