"""Methods that change or compare the images: mixed ones, gradients with respect to them, pairs of them."""

import logging
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.distributions import Dirichlet

from ltkd import losses
from ltkd.data.batches import Batch
from ltkd.methods.base import Method, MethodContext, Needs, NonNegative, Positive, register
from ltkd.methods.partners import draw_partners
from ltkd.methods.task import TaskLoss
from ltkd.models.output import ModelOutput

logger = logging.getLogger(__name__)

Partner = Literal["permutation", "class_balanced"]


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

    paper = "Liang et al.: MixKD: Towards Efficient Distillation of Large-scale Language Models, arXiv:2011.00593"
    needs = Needs(networks=True)

    def __init__(
        self,
        context: MethodContext,
        task_loss: TaskLoss,
        *,
        task_weight: NonNegative,
        student_mixup_weight: NonNegative,
        teacher_mixup_weight: NonNegative,
        kd_weight: NonNegative,
        mixup_alpha: Annotated[float, Ge(0.05)],  # below, float32 samples of Beta are 0 or 1
        distance: Literal["mse", "kl"],
        temperature: Positive,
        partner: Partner,
    ) -> None:
        super().__init__(context, task_loss, task_weight=task_weight)
        self.student_mixup_weight = student_mixup_weight
        self.teacher_mixup_weight = teacher_mixup_weight
        self.kd_weight = kd_weight
        self.distance = distance
        self.temperature = temperature
        self.balanced = partner == "class_balanced"
        self.networks = context.networks
        self.register_buffer("_concentration", torch.full((2,), mixup_alpha), persistent=False)
        if not student_mixup_weight and not teacher_mixup_weight:
            logger.warning("method mixkd: both mixup weights are 0, so no image is mixed")

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        if self.kd_weight:
            terms["kd"] = self.kd_weight * losses.kd(student.logits, teacher.logits, temperature=self.temperature)
        if not self.student_mixup_weight and not self.teacher_mixup_weight:
            return terms
        lam = Dirichlet(self._concentration, validate_args=False).sample()[0]  # a check would wait for the device
        partner = draw_partners(batch.labels, 1, balanced=self.balanced).squeeze(1)
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


@register("kdiga")
class KDIGA(Method):
    """task_weight * task + kd_weight * KD + gradient_weight * mean_b || dCE(z_s, y)/dx - dCE(z_t, y)/dx ||_2.

    For handing an adversarially robust teacher's robustness on; the result has the accuracy under attack. The paper's
    norm (l2 or its square) and weights could not be confirmed: the norm is a setting, the weights are a choice.

    Gradients are with respect to normalised pixels. The student's batch normalisation is in training mode and couples
    the images: an image's gradient is then that of all images' losses. The teacher's, in eval mode, is its own.
    Cost: the student is differentiated twice and the teacher once, and their activations are kept meanwhile.
    With precision.autocast=bfloat16 the gradients pass through bfloat16 layers; prefer float32.
    """

    paper = (
        "Shao, Yi, Chen, Hsieh: How and When Adversarial Robustness Transfers in Knowledge Distillation?, "
        "arXiv:2110.12072"
    )
    needs = Needs(input_gradients=True)
    reports_robustness = True

    def __init__(
        self,
        context: MethodContext,
        task_loss: TaskLoss,
        *,
        task_weight: NonNegative,
        kd_weight: NonNegative,
        temperature: Positive,
        gradient_weight: NonNegative,
        norm: Literal["l2", "squared"],
    ) -> None:
        super().__init__(context, task_loss, task_weight=task_weight)
        self.kd_weight = kd_weight
        self.temperature = temperature
        self.gradient_weight = gradient_weight
        self.squared = norm == "squared"

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        alignment = losses.input_gradient_alignment(
            student.logits, teacher.logits, batch.labels, batch.images, squared=self.squared
        )
        return {
            "kd": self.kd_weight * losses.kd(student.logits, teacher.logits, temperature=self.temperature),
            "gradient": self.gradient_weight * alignment,
        }


@register("ckd")
class ComparativeKD(Method):
    """task_weight * task + weight * mean((D_s - D_t)^2) + label_weight * mean((D_s - D_y)^2).

    D compares groups of group_size images of the batch: the mean logits of the first half (rounded up) minus those of
    the second. With group_size 2 it is the difference of an image and its partner. Every image begins a group of its
    own; partner "permutation": the others follow it on a random cycle through the batch; "class_balanced": each is
    drawn with replacement, first a class of the batch and then one of its images.

    The paper's objective is task_weight=0, weight=1, label_weight=1 with group_size 2 or 3. Its setting, few calls of
    the teacher (up to 100,000 fixed groups of 2,000 to 6,000 images with stored teacher logits, student and teacher
    under different augmentations, early stopping), is not carried over: here every batch makes its groups, and student
    and teacher see the same views. The default, its comparison beside the task loss, is a choice.
    """

    paper = "Wilf et al.: Comparative Knowledge Distillation, arXiv:2311.02253 (WACV 2025)"

    def __init__(
        self,
        context: MethodContext,
        task_loss: TaskLoss,
        *,
        task_weight: NonNegative,
        weight: NonNegative,
        label_weight: NonNegative,
        group_size: Annotated[int, Ge(2)],
        partner: Partner,
    ) -> None:
        super().__init__(context, task_loss, task_weight=task_weight)
        self.weight = weight
        self.label_weight = label_weight
        self.group_size = group_size
        self.balanced = partner == "class_balanced"

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        partners = draw_partners(batch.labels, self.group_size - 1, balanced=self.balanced)
        own = torch.arange(len(partners), device=partners.device).unsqueeze(1)
        positive, negative = torch.cat((own, partners), dim=1).tensor_split(2, dim=1)  # the first half is the larger
        compared = [logits[part] for logits in (student.logits, teacher.logits) for part in (positive, negative)]
        terms = {"comparison": self.weight * losses.comparative_kd(*compared)}
        if self.label_weight:
            labels = batch.labels[positive], batch.labels[negative]
            terms["label_comparison"] = self.label_weight * losses.comparative_labels(*compared[:2], *labels)
        return terms
