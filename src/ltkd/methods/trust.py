"""KD that trusts the teacher where it is right and looks after the classes that the student gets wrong."""

from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive


@register("tcl")
class TrustGatedKD(Method):
    """task_weight * task + weight * T^2 * mean_b 1[teacher right] w_y KL(teacher || student).

    w_c = sqrt(1 - a_c), scaled to mean 1; a_c is the student's accuracy on the augmented training images of class c, an
    exponential average over the epochs with `momentum`, 0 before the first epoch (all w are 1). Part of the checkpoint.
    The share of open gates is logged as open_gates, by group too: a teacher that knows its training images by heart
    opens all of them.
    Only a note on the paper was at hand: there the gate and the weights stand between several experts. One teacher,
    whose accuracy, its average, T and the mean over the whole batch are our choice; the part for images that all
    experts get wrong is not carried over.
    """

    reads_labels = True
    reads_batch = True
    paper = "TCL, trust-gated mutual distillation between experts, CVPR 2026 (a note on it)"
    fidelity = "inspired"

    weight: NonNegative
    temperature: Positive
    momentum: Annotated[float, Ge(0), Lt(1)]

    def build(self, context: MethodContext) -> None:
        for name in ("class_accuracy", "correct", "seen"):
            self.register_buffer(name, torch.zeros(context.num_classes))

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        self.record("open_gates", 100 * (teacher.logits.argmax(dim=1) == batch.labels), batch.labels)
        if self.training:
            self._count(student.logits.detach(), batch.labels)
        loss = losses.trust_gated_kd(
            student.logits, teacher.logits, batch.labels, self.class_accuracy, temperature=self.temperature
        )
        return {"trusted_kd": self.weight * loss}

    @torch.no_grad()
    def end_epoch(self, model: nn.Module) -> None:
        super().end_epoch(model)
        accuracy = torch.where(self.seen > 0, self.correct / self.seen.clamp(min=1), self.class_accuracy)
        self.class_accuracy.lerp_(accuracy, 1 - self.momentum)
        self.correct.zero_()
        self.seen.zero_()

    @torch.no_grad()
    def _count(self, logits: Tensor, labels: Tensor) -> None:
        member = torch.arange(len(self.seen), device=labels.device).unsqueeze(1) == labels
        self.seen += member.sum(dim=1)
        self.correct += (member & (logits.argmax(dim=1) == labels)).sum(dim=1)
