"""Hard distillation with deferred re-weighting: the teacher's decision is a second label."""

from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from ltkd import losses
from ltkd.data.batches import Batch
from ltkd.methods.base import Method, MethodContext, register
from ltkd.methods.class_counts import check_every_class
from ltkd.models.output import ModelOutput
from ltkd.ranges import Fraction, NonNegative
from ltkd.task_losses import TaskLoss


@register("deit_lt")
class DeferredHardDistillation(Method):
    """task_weight * task + weight * sum_b w_k CE(s, k) / sum_b w_k, k = argmax of the teacher. Adapted.

    After the first `deferral_fraction` of the epochs w is the effective-number weight of the teacher's class k, not of
    the label; until then 1. The share of images on which the teacher is right is logged as teacher_correct, by group
    too: a class that the teacher never predicts is not distilled at all.
    The loss is the public code's. There it trains a vision transformer with a token, hence a head, for each of the two
    terms, and mixes images; here any student's one head has both.
    """

    paper = (
        "Rangwani et al.: DeiT-LT: Distillation Strikes Back for Vision Transformer Training on Long-Tailed Datasets, "
        "arXiv:2404.02900 (CVPR 2024)"
    )

    def __init__(
        self,
        context: MethodContext,
        task_loss: TaskLoss,
        *,
        task_weight: NonNegative,
        weight: NonNegative,
        effective_number_beta: Annotated[float, Ge(0), Lt(1)],  # 1: weights of 0 / 0
        deferral_fraction: Fraction,
    ) -> None:
        super().__init__(context, task_loss, task_weight=task_weight)
        check_every_class(self.name, context)
        self.weight = weight
        self.effective_number_beta = effective_number_beta
        self.deferred_epochs = round(deferral_fraction * context.epochs)
        self.register_buffer("class_counts", context.class_counts.clone(), persistent=False)
        # On the device, so that a captured training step sees each epoch's value; 0 makes all weights 1.
        self.register_buffer("beta", torch.tensor(self._beta_at(1), dtype=torch.float64), persistent=False)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        decision = teacher.logits.argmax(dim=1)
        self.record("teacher_correct", 100 * (decision == batch.labels), batch.labels)
        loss = losses.weighted_cross_entropy(student.logits, decision, self.class_counts, beta=self.beta)
        return {"hard": self.weight * loss}

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self.beta.fill_(self._beta_at(epoch))

    def _beta_at(self, epoch: int) -> float:
        return 0.0 if epoch <= self.deferred_epochs else self.effective_number_beta
