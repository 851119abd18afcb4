"""Methods made for long-tailed data: soft labels re-weighted by class, and virtual examples."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import Fraction, NonNegative, Positive
from ltkd.task_losses.class_counts import check_every_class


class DeferredReweighting(Method):
    """A method with class weights by effective numbers of images, which are 1 for the first `deferral_fraction` of the
    epochs. `distill` finds the counts in `class_counts` and the effective number's beta of the epoch in `beta`.
    """

    effective_number_beta: Annotated[float, Ge(0), Lt(1)]  # 1: weights of 0 / 0
    deferral_fraction: Fraction

    def build(self, context: MethodContext) -> None:
        check_every_class(f"method.name: {self.name}", context.class_counts, remedy="another method")
        self.deferred_epochs = round(self.deferral_fraction * context.epochs)
        self.register_buffer("class_counts", context.class_counts.clone(), persistent=False)
        # On the device, so that a captured training step sees each epoch's value; 0 makes all weights 1.
        self.register_buffer("beta", torch.tensor(self._beta_at(1), dtype=torch.float64), persistent=False)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self.beta.fill_(self._beta_at(epoch))

    def _beta_at(self, epoch: int) -> float:
        return 0.0 if epoch <= self.deferred_epochs else self.effective_number_beta


@register("bkd")
class BKD(DeferredReweighting):
    """task_weight * task + weight * T^2 * KL(teacher's probabilities times class weights, renormalised || student).

    The class weights are those of the effective number of images; until the end of the first `deferral_fraction` of
    the epochs they are 1, and the term is plain KD.
    """

    paper = "Zhang et al.: Balanced Knowledge Distillation for Long-tailed Learning, arXiv:2104.10510"
    fidelity = "faithful"

    weight: NonNegative
    temperature: Positive

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        loss = losses.balanced_kd(
            student.logits,
            teacher.logits,
            self.class_counts,
            temperature=self.temperature,
            effective_number_beta=self.beta,
        )
        return {"balanced_kd": self.weight * loss}


@register("dive")
class DiVE(Method):
    """task_weight * task + weight * T^2 * KL(teacher's p^power renormalised || student).

    The paper's task loss is the balanced softmax, for the teacher too: the virtual examples of a teacher trained with
    plain cross-entropy are biased towards the head, and distilling them is not DiVE.
    """

    paper = "He, Wu, Wei: Distilling Virtual Examples for Long-tailed Recognition, arXiv:2103.15042"
    fidelity = "faithful"
    made_for: ClassVar = {"teacher.task_loss": "balanced_softmax", "student.task_loss": "balanced_softmax"}

    weight: NonNegative
    temperature: Positive
    power: Positive

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        loss = losses.dive(student.logits, teacher.logits, temperature=self.temperature, power=self.power)
        return {"dive": self.weight * loss}
