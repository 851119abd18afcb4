"""Distillation that depends on whether the teacher accepts what the student proposes."""

from typing import Literal

from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive, PositiveInt


@register("skd")
class SpeculativeKD(Method):
    """The student proposes a class for each image; it is accepted if it is among the teacher's top k.

    variant:
        keep        task_weight * task + weight * KD on the images whose proposal is rejected. An accepted image keeps
                    the student's own distribution as its target, which asks nothing of it. So KD fades as the student
                    gets good: hardly any proposal is rejected then, and the task loss alone is left.
        curriculum  task_weight * task + weight * (KD on the accepted images + CE on the rejected ones towards a class
                    that the teacher chooses): images on which the student is far off learn a label first.
    Both parts are divided by the size of the whole batch.
    proposal: "argmax" of the student, and of the teacher for the chosen class; or "sampled" from their softmaxes at
    student_temperature and teacher_temperature.

    The paper distils language models: the student proposes tokens, those outside the teacher's top k are replaced by
    the teacher's, and KL is taken on the resulting sequence. An image has one "token", which never becomes an input:
    nothing is left of the sampling, and carried over is the acceptance rule alone. k (25 of a vocabulary there) and the
    two variants are a choice; nearest to the original is curriculum with sampled proposals.
    The share of accepted images, in all and by group, is logged as accepted.
    """

    reads_batch = True
    paper = (
        "Xu et al.: Speculative Knowledge Distillation: Bridging the Teacher-Student Gap Through Interleaved Sampling, "
        "arXiv:2410.11325 (ICLR 2025)"
    )
    fidelity = "adapted"

    weight: NonNegative
    temperature: Positive
    k: PositiveInt
    variant: Literal["keep", "curriculum"]
    proposal: Literal["argmax", "sampled"]
    student_temperature: Positive
    teacher_temperature: Positive

    def build(self, context: MethodContext) -> None:
        if self.k >= context.num_classes:
            raise UserError(
                f"method.k: should be less than the number of classes ({context.num_classes}), or every proposal is "
                f"accepted; got {self.k}"
            )

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        proposal = self._choose(student.logits.detach(), self.student_temperature)
        accepted = losses.speculative_acceptance(proposal, teacher.logits, k=self.k)
        self.record("accepted", accepted, batch.labels)
        followed = ~accepted if self.variant == "keep" else accepted
        kd = losses.masked_kd(student.logits, teacher.logits, followed, temperature=self.temperature)
        if self.variant == "keep":
            return {"kd": self.weight * kd}
        chosen = self._choose(teacher.logits, self.teacher_temperature)
        return {
            "kd": self.weight * kd,
            "chosen_class": self.weight * losses.masked_cross_entropy(student.logits, chosen, ~accepted),
        }

    def _choose(self, logits: Tensor, temperature: float) -> Tensor:
        if self.proposal == "argmax":
            return logits.argmax(dim=1)
        return losses.sample_class(logits, temperature=temperature)
