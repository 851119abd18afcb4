"""Mixed images: the student learns on them and follows the teacher there."""

import logging
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.distributions import Dirichlet

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.methods.partners import Partner, draw_partners
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive

logger = logging.getLogger(__name__)


@register("mixkd")
class MixKD(Method):
    """task_weight * task + student_mixup_weight * CE(z_s(x'), y') + teacher_mixup_weight * d(z_t(x'), z_s(x'))
    + kd_weight * KD on the images as they are; x' = lam x + (1 - lam) x_partner, y' likewise.

    The paper distils language models. Carried over: the loss on the originals, the student on mixed inputs with mixed
    labels, the student following the teacher on mixed inputs. Not carried over: the paper mixes embeddings of words,
    here pixels are mixed (after normalisation, which is the same). Its weights, its Beta parameter and its distance
    could not be confirmed: those of conf/method/mixkd.yaml are a choice.

    One lam per batch, from Beta(mixup_alpha, mixup_alpha). distance: "mse" of the logits, mean over images and classes
    (its weight is not comparable with the other's), or "kl", T^2 KL(teacher || student) at `temperature`.
    partner: "permutation", or "class_balanced": first a class of the batch, then one of its images.
    The student's batch normalisation trains on both passes, the originals' and the mixed.
    """

    reads_labels = True
    reads_batch = True
    paper = "Liang et al.: MixKD: Towards Efficient Distillation of Large-scale Language Models, arXiv:2011.00593"
    fidelity = "adapted"
    needs = Needs(networks=True, mixed_images=True)

    student_mixup_weight: NonNegative
    teacher_mixup_weight: NonNegative
    kd_weight: NonNegative
    mixup_alpha: Annotated[float, Ge(0.05)]  # below, float32 samples of Beta are 0 or 1
    distance: Literal["mse", "kl"]
    temperature: Positive
    partner: Partner

    def build(self, context: MethodContext) -> None:
        self.networks = context.networks
        self.register_buffer("_concentration", torch.full((2,), self.mixup_alpha), persistent=False)
        if not self.student_mixup_weight and not self.teacher_mixup_weight:
            logger.warning("method mixkd: both mixup weights are 0, so no image is mixed")

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        if self.kd_weight:
            terms["kd"] = self.kd_weight * losses.kd(student.logits, teacher.logits, temperature=self.temperature)
        if not self.student_mixup_weight and not self.teacher_mixup_weight:
            return terms
        lam = Dirichlet(self._concentration, validate_args=False).sample()[0]  # a check would wait for the device
        partner = draw_partners(batch.labels, 1, self.partner).squeeze(1)
        mixed = lam * batch.images + (1 - lam) * batch.images[partner]
        logits = self.networks.student(mixed).logits
        if self.student_mixup_weight:
            loss = losses.mixup_cross_entropy(logits, batch.labels, batch.labels[partner], lam)
            terms["student_mixup"] = self.student_mixup_weight * loss
        if self.teacher_mixup_weight:
            teacher_logits = self.networks.teacher(mixed).logits
            terms["teacher_mixup"] = self.teacher_mixup_weight * self._distance(logits, teacher_logits)
        return terms

    def _distance(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        if self.distance == "mse":
            return losses.logit_mse(student_logits, teacher_logits)
        return losses.kd(student_logits, teacher_logits, temperature=self.temperature)
