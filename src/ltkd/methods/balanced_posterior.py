"""Distillation from several teachers with the correction for the class counts inside of the student."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive, PositiveInt
from ltkd.task_losses.class_counts import check_every_class


@register("balanced_posterior")
class BalancedPosterior(Method):
    """task_weight * task(s + log pi) + weight * T^2 KL(mean_k softmax(t_k / T) || softmax((s + log pi) / T))

    pi is the share of each class in the training labels, s are the student's logits, those that are deployed. Both
    terms train s + log pi as plain KD trains its logits, so s is what KD gives once its logits are corrected after
    training, and is not to be corrected again. t_k are `teachers` networks that differ in their seed, teacher.seed,
    teacher.seed + 1, ...; all come from the teacher store, and the student's training costs the same with any number of
    them once their logits are stored. teachers=1 is KD with the correction inside.

    Where a sampler makes the frequencies r of the classes in the student's batches differ from pi
    (student.recipe.sampling), log r replaces log pi and t_k + log r - log pi replaces t_k: s is the balanced posterior
    under any sampling of the student's images, and rare classes can have more weight in both terms. The teacher is to
    be trained with plain cross-entropy on all images alike: pi is the prior of its logits.
    """

    paper = (
        "none: put together in this project of KD (arXiv:1503.02531), the balanced softmax (arXiv:2007.10740) and "
        "deep ensembles (arXiv:1612.01474)"
    )
    fidelity = "adapted"
    made_for: ClassVar = {"teacher.task_loss": "ce", "teacher.recipe.sampling": "instance"}

    weight: NonNegative
    temperature: Positive
    teachers: PositiveInt

    def build(self, context: MethodContext) -> None:
        check_every_class(f"method.name: {self.name}", context.class_counts, remedy="another method")
        if self.task_loss.corrects_prior:
            raise UserError(f"student.task_loss: method {self.name} corrects for the class counts itself; use ce")
        self.register_buffer("class_counts", context.class_counts.clone(), persistent=False)
        self._drawn_in = context.drawn
        drawn = None if context.drawn is None else context.drawn(1).float()
        self.register_buffer("drawn", drawn, persistent=False)  # of this epoch; a captured training step sees it change

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        if self._drawn_in is not None:
            self.drawn.copy_(self._drawn_in(epoch))

    @classmethod
    def extra_teachers(
        cls, teacher: Mapping[str, Any], student: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        if teacher["checkpoint"] is not None and arguments["teachers"] > 1:
            raise UserError("method.teachers: more than one are trained from several seeds; teacher.checkpoint is one")
        return [{"seed": teacher["seed"] + member} for member in range(1, arguments["teachers"])]

    def task_term(self, logits: Tensor, batch: Batch) -> Tensor:
        frequencies = self.class_counts if self.drawn is None else self.drawn
        return super().task_term(logits + frequencies.log(), batch)  # log pi and a constant, which no loss sees

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        loss = losses.balanced_posterior_kd(
            student.logits,
            torch.stack((teacher.logits, *batch.extra_logits)),
            self.class_counts,
            temperature=self.temperature,
            drawn=self.drawn,
        )
        return {"kd": self.weight * loss}
