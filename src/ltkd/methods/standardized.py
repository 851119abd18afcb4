"""LSKD: methods on standardised logits, so that the student learns relations and not the teacher's scale."""

from dataclasses import replace

from torch import Tensor

from ltkd.data.batch import Batch
from ltkd.losses import standardize
from ltkd.methods.base import Method, register
from ltkd.methods.logit import DKD, KD
from ltkd.methods.mlkd import MLKD
from ltkd.models.output import ModelOutput

PAPER = "Sun et al.: Logit Standardization in Knowledge Distillation, arXiv:2403.01427"


class _Standardized(Method):
    """Mixin before a method: its distillation terms, not its task loss, see z-scores over the classes."""

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        student, teacher = (replace(output, logits=standardize(output.logits)) for output in (student, teacher))
        return super().distill(student, teacher, batch)


@register("lskd_kd")
class StandardizedKD(_Standardized, KD):
    """KD on standardised logits: task_weight * task + weight * KD(z-scores)."""

    paper = PAPER
    fidelity = "faithful"


@register("lskd_dkd")
class StandardizedDKD(_Standardized, DKD):
    """DKD on standardised logits: task_weight * task + warm-up * (alpha * target part + beta * non-target part)."""

    paper = PAPER
    fidelity = "faithful"


@register("lskd_mlkd")
class StandardizedMLKD(MLKD):
    """MLKD with its instance term on standardised logits; batch and class terms see the logits as they are.

    Which weights the authors give the terms could not be confirmed: those of conf/method/lskd_mlkd.yaml are a choice.
    """

    paper = PAPER
    fidelity = "adapted"

    def instance_logits(self, logits: Tensor) -> Tensor:
        return standardize(logits)
