"""Multi-level logit distillation: instances, batches and classes, on a weak and a strong view of the batch."""

from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive


@register("mlkd")
class MLKD(Method):
    """On both views: task_weight * task + instance_weight * instance + batch_weight * batch + class_weight * class.

    The strong view is `batch.second_view`. The student runs on it in a pass of its own, so that its BatchNorm
    statistics are updated twice per step, as in the authors' code.

    public_code: what the authors' code optimises in place of the equation, for comparison with its numbers. Its
    confidence masks multiply losses that are already means, so that they only scale by the share of images (classes)
    whose teacher confidence (mass in the batch) is at most the median; the strong view's instance term compares the
    weak logits at the lowest and the highest temperature, and its batch and class terms are left out.
    """

    reads_labels = True
    reads_batch = True
    paper = "Jin, Wang, Lin: Multi-Level Logit Distillation, CVPR 2023"
    fidelity = "faithful"
    needs = Needs(second_view=True, networks=True)

    instance_weight: NonNegative
    batch_weight: NonNegative
    class_weight: NonNegative
    temperatures: Annotated[list[Positive], MinLen(1)]
    public_code: bool

    def build(self, context: MethodContext) -> None:
        if self.public_code and len(self.temperatures) < 2:
            raise UserError(
                "method.temperatures: should have at least 2 entries with method.public_code=true, which treats the "
                f"lowest and the highest apart; got {self.temperatures}"
            )
        self.temperatures = sorted(self.temperatures)
        self._networks = context.networks

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        strong_student = self._networks.student(batch.second_view).logits
        strong_teacher = self._networks.teacher(batch.second_view).logits
        weak, strong = (student.logits, teacher.logits), (strong_student, strong_teacher)
        instance, batches, classes = self._public_code(weak, strong) if self.public_code else self._terms(weak, strong)
        return {
            "task_strong": self.task_weight * self.task_loss(strong_student, batch.labels),
            "instance": self.instance_weight * instance,
            "batch": self.batch_weight * batches,
            "class": self.class_weight * classes,
        }

    def instance_logits(self, logits: Tensor) -> Tensor:
        """Selects what the instance term sees of logits."""
        return logits

    def _terms(self, weak: tuple[Tensor, Tensor], strong: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Instance, batch and class term, summed over the views."""
        at = {"temperatures": self.temperatures}
        instance = self._instance(weak, self.temperatures) + self._instance(strong, self.temperatures)
        batches, classes = (loss(*weak, **at) + loss(*strong, **at) for loss in (losses.mlkd_batch, losses.mlkd_class))
        return instance, batches, classes

    def _public_code(self, weak: tuple[Tensor, Tensor], strong: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        probability = weak[1].detach().float().softmax(dim=1)
        images, classes = (_share_up_to_median(v) for v in (probability.amax(dim=1), probability.sum(dim=0)))
        lowest, *between, highest = self.temperatures
        instance = images * self._instance(weak, self.temperatures)
        instance = instance + self._instance(strong, between) + self._instance(weak, [lowest, highest])
        at = {"temperatures": self.temperatures}
        return instance, images * losses.mlkd_batch(*weak, **at), classes * losses.mlkd_class(*weak, **at)

    def _instance(self, logits: tuple[Tensor, Tensor], temperatures: list[float]) -> Tensor:
        return losses.mlkd_instance(*map(self.instance_logits, logits), temperatures=temperatures)


def _share_up_to_median(values: Tensor) -> Tensor:
    return (values <= values.median()).to(torch.float32).mean()
