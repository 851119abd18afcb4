"""A target beyond the teacher, extrapolated from a reference."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UnknownName, UserError
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models import model_factory
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive
from ltkd.task_losses.class_counts import check_every_class


@register("exopd")
class RewardExtrapolation(Method):
    """task_weight * task + weight * T^2 * KL between the student and softmax((z_ref + l (z_t - z_ref)) / T).

    divergence: "reverse", KL(student || target), the paper's; "forward", KL(target || student), as KD.
    l is reward_scale: 1 is the teacher itself, above 1 the target goes on from the reference through the teacher.
    reference:
        prior    log of the class frequencies: the target is the teacher with a logit adjustment of l - 1 towards the
                 tail
        student  a network of the student's architecture trained on the labels alone (cross-entropy, the student's
                 recipe, the teacher's seed)
        NAME     a network of that name, trained likewise by the recipe: a small reference teacher
    Networks come from the teacher store.

    The paper distils language models on the student's own samples (on-policy). Carried over: its objective, whose
    expectation over the student's distribution is exact for classes. Not carried over: sampling, sequences. Its
    references, the student's initial state and the teacher before reinforcement learning, have no counterpart here: of
    the above, "student" is the closest to the first. The prior is our choice for long-tailed data.
    """

    paper = (
        "Yang et al.: Learning beyond Teacher: Generalized On-Policy Distillation with Reward Extrapolation, "
        "arXiv:2602.12125"
    )
    fidelity = "adapted"

    weight: NonNegative
    temperature: Positive
    reward_scale: Positive
    divergence: Literal["reverse", "forward"]
    reference: str

    def build(self, context: MethodContext) -> None:
        if self.reference == "prior":
            check_every_class("method.reference: prior", context.class_counts, remedy="reference=student")
            log_prior = (context.class_counts / context.class_counts.sum()).log()
            self.register_buffer("log_prior", log_prior, persistent=False)

    @classmethod
    def extra_teachers(
        cls, teacher: Mapping[str, Any], student: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        reference = arguments["reference"]
        if reference == "prior":
            return []
        plain = {
            "task_loss": "ce",
            "checkpoint": None,
            "retraining": None,
        }  # nothing of what the configuration says of the teacher
        if reference == "student":
            return [plain | {key: student[key] for key in ("name", "arguments", "pretrained", "recipe")}]
        try:
            model_factory(reference)
        except UnknownName as error:
            raise UserError(error.under("method.reference") + " (or prior, or student)") from None
        return [plain | {"name": reference, "arguments": {}, "pretrained": False, "recipe": {}}]

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        reference = self.log_prior if self.reference == "prior" else batch.extra_logits[0]
        divergence = losses.reverse_kl_to_target if self.divergence == "reverse" else losses.forward_kl_to_target
        loss = divergence(
            student.logits, teacher.logits, reference, reward_scale=self.reward_scale, temperature=self.temperature
        )
        return {"extrapolation": self.weight * loss}
