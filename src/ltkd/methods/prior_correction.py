"""Class-conditional KD: distil the teacher's posterior divided by a prior."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive
from ltkd.task_losses.class_counts import check_every_class

SMALLEST_PRIOR = 1e-4  # of the teacher's mean prediction: an entry near 0 would make its class the target everywhere


@register("cckd")
class ClassConditionalKD(Method):
    """task_weight * task + weight * T^2 KL(softmax((t - log m) / T) || softmax((s + student_prior log pi) / T)).

    Of class-conditional KD only the abstract was at hand (pass on p(x|y) in place of p(y|x)).
    m, by teacher_prior:
        labels       pi, the share of each class in the training labels: a logit adjustment of the teacher
        predictions  mean over the classes of the teacher's mean prediction (at T = 1, in eval mode, without
                     augmentation) on their training images; at least 1e-4. A teacher that knows its training images by
                     heart has a uniform m, and the term is plain KD.
    student_prior: 0 for a balanced task loss, which makes the student's own logits the balanced posterior; with plain
    cross-entropy -1 says the same of the student as the correction does of the teacher.
    """

    paper = (
        "Class-Conditional Knowledge Distillation, ICML 2024 (abstract); the correction: Menon et al.: Long-Tail "
        "Learning via Logit Adjustment, arXiv:2007.07314"
    )
    fidelity = "inspired"
    made_for: ClassVar = {
        "teacher.task_loss": "ce",
        "teacher.recipe.sampling": "instance",
        "student.task_loss": "balanced_softmax",
    }

    weight: NonNegative
    temperature: Positive
    teacher_prior: Literal["labels", "predictions"]
    student_prior: float

    def build(self, context: MethodContext) -> None:
        check_every_class(f"method.name: {self.name}", context.class_counts, remedy="another method")
        self.needs_teacher_statistics = self.teacher_prior == "predictions"
        self.register_buffer("class_counts", context.class_counts.clone(), persistent=False)
        # determined by the teacher: prepared anew by every process
        prior = context.class_counts.float() / context.class_counts.sum()
        self.register_buffer("prior", prior, persistent=False)

    @torch.no_grad()
    def prepare(self, teacher_logits: Tensor, labels: Tensor) -> None:
        means = losses.class_mean_probabilities(teacher_logits, labels, temperature=1.0)
        self.prior.copy_(means.mean(dim=0).clamp(min=SMALLEST_PRIOR))

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        loss = losses.prior_corrected_kd(
            student.logits,
            teacher.logits,
            self.prior,
            self.class_counts,
            temperature=self.temperature,
            student_prior=self.student_prior,
        )
        return {"corrected_kd": self.weight * loss}
