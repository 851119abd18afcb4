"""SSD: a second classifier learns the labels, so that the deployed one may learn the teacher alone."""

from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive


@register("ssd")
class TwoHeads(Method):
    """task_weight * task of the hard head + weight * KD of the soft head, both on the student's pooled vector.

    The soft head is the student's own classifier: it sees no label and is deployed. The hard head is a linear layer of
    the method's, gone after training; its accuracy on the training images is logged as hard_head_accuracy, by group.
    Carried over is the third stage of the paper's three, and the teacher stays in eval mode (the public code lets its
    normalisation drift). The teacher of the first two is to be balanced: choose one of a long-tail task loss, or
    retrained.
    """

    reads_labels = True
    paper = "Li, Wang, Wu: Self Supervision to Distillation for Long-Tailed Visual Recognition, arXiv:2109.04075"
    fidelity = "adapted"

    weight: NonNegative
    temperature: Positive

    def build(self, context: MethodContext) -> None:
        if self.task_loss.replaces_classifier:
            raise UserError(
                f"student.task_loss: {type(self.task_loss).__name__} is made for a classifier of another kind; the "
                "hard head of method ssd is linear. Choose another task loss or method"
            )
        if context.student.embedding is None:
            raise UserError(
                f"method ssd: needs the pooled vector that the classifier sees, but student {context.student_name} "
                "has none"
            )
        self.hard_head = nn.Linear(context.student.embedding.shape[1], context.num_classes)

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> dict[str, Tensor]:
        logits = self.hard_head(student.embedding)
        self.record("hard_head_accuracy", 100 * (logits.argmax(dim=1) == batch.labels), batch.labels)
        kd = losses.kd(student.logits, teacher.logits, temperature=self.temperature)
        return {"task": self.task_weight * self.task_loss(logits, batch.labels), "kd": self.weight * kd}
