"""Methods that change the teacher's side: who the teacher is, and what the student is asked to follow."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batches import Batch
from ltkd.errors import UnknownName, UserError
from ltkd.methods.base import Method, MethodContext, Needs, NonNegative, Positive, register
from ltkd.methods.task import TaskLoss
from ltkd.models import model_factory
from ltkd.models.output import ModelOutput

logger = logging.getLogger(__name__)

PositiveInt = Annotated[int, Ge(1)]
SETTINGS_OF_POSTERIOR = {"mc_dropout": ("dropout",), "swag": ("swag_epochs", "swag_learning_rate", "swag_rank")}


@register("bayesian")
class BayesianTeacher(Method):
    """task_weight * task + weight * T_t T_s KL(pbar || softmax(z_s / T_s)), pbar = mean of softmax(z_t / T_t) over
    `samples` of the teacher's posterior.

    posterior:
        ensemble    teachers that differ in their seed: teacher.seed, teacher.seed + 1, ... All come from the teacher
                    store and all are in memory. A deep ensemble (arXiv:1612.01474).
        mc_dropout  the teacher with S dropout masks in front of its classifier (arXiv:1506.02142). A cheap stand-in:
                    the teacher was not trained with dropout and its features are the same in every sample, so this is a
                    perturbation of the last layer and no posterior that was fitted to data.
        swag        S networks drawn from a Gaussian around the trained teacher, whose moments are collected over
                    swag_epochs further epochs (arXiv:1902.02476; engine/swag.py). All are in memory beside the teacher.
    The paper's own posteriors, variational with inducing weights and Laplace on the last layer, are not offered.

    A setting of another posterior than the chosen one is null in conf/method/bayesian.yaml.
    """

    paper = (
        "Morad, Shlezinger, Eldar: SGD-Based Knowledge Distillation with Bayesian Teachers: Theory and Guidelines, "
        "arXiv:2601.01484 (ICLR 2026)"
    )

    def __init__(
        self,
        context: MethodContext,
        task_loss: TaskLoss,
        *,
        task_weight: NonNegative,
        weight: NonNegative,
        teacher_temperature: Positive,
        student_temperature: Positive,
        posterior: Literal["ensemble", "mc_dropout", "swag"],
        samples: PositiveInt,
        dropout: Annotated[float, Gt(0), Lt(1)] | None,
        swag_epochs: Annotated[int, Ge(2)] | None,
        swag_learning_rate: Positive | None,
        swag_rank: Annotated[int, Ge(2)] | None,
    ) -> None:
        super().__init__(context, task_loss, task_weight=task_weight)
        self.weight = weight
        self.teacher_temperature = teacher_temperature
        self.student_temperature = student_temperature
        self.posterior = posterior
        self.samples = samples
        self.dropout = dropout
        given = {"dropout": dropout, "swag_epochs": swag_epochs, "swag_learning_rate": swag_learning_rate,
                 "swag_rank": swag_rank}  # fmt: skip
        for key, value in given.items():
            if value is not None and key not in SETTINGS_OF_POSTERIOR.get(posterior, ()):
                logger.warning("method.%s has no effect with method.posterior=%s", key, posterior)
        if posterior == "mc_dropout":
            self.needs = Needs(embedding=True)
            classifier = context.networks.teacher_classifier
            if classifier is None or context.teacher.embedding is None or isinstance(classifier, nn.Conv2d):
                raise UserError(
                    "method.posterior: mc_dropout needs a teacher whose logits come from one linear layer on a pooled "
                    "vector; this one's do not. Choose ensemble or swag, or another teacher"
                )
            self._networks = context.networks  # not the layer itself: a module in a method is saved and trained with it

    @classmethod
    def further_teachers(
        cls, teacher: Mapping[str, Any], student: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        posterior, samples = arguments["posterior"], arguments["samples"]
        for key in SETTINGS_OF_POSTERIOR.get(posterior, ()):
            if arguments[key] is None:
                raise UserError(f"method.{key}: is needed with method.posterior={posterior}")
        if posterior == "ensemble":
            if teacher["checkpoint"] is not None and samples > 1:
                raise UserError(
                    "method.posterior: ensemble trains teachers of several seeds; teacher.checkpoint is one"
                )
            return [{"seed": teacher["seed"] + member} for member in range(1, samples)]
        if posterior == "swag":
            swag = {key: arguments[f"swag_{key}"] for key in ("epochs", "learning_rate", "rank")}
            return [{"swag": swag | {"sample": sample}} for sample in range(samples)]
        return []

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        loss = losses.bayesian_teacher(
            student.logits, self._logit_samples(teacher, batch),
            teacher_temperature=self.teacher_temperature, student_temperature=self.student_temperature,
        )  # fmt: skip
        return {"kd": self.weight * loss}

    @torch.no_grad()
    def _logit_samples(self, teacher: ModelOutput, batch: Batch) -> Tensor:
        """[S, B, C]."""
        if self.posterior == "ensemble":
            return torch.stack((teacher.logits, *batch.further_logits))
        if self.posterior == "swag":
            return torch.stack(batch.further_logits)
        embeddings = teacher.embedding.repeat(self.samples, 1)
        return self._networks.teacher_classifier(F.dropout(embeddings, self.dropout)).unflatten(0, (self.samples, -1))


class LowRank(nn.Module):
    """h -> h A B with an inner width of `rank`, 0 at the start because B is."""

    def __init__(self, width: int, rank: int, num_classes: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, num_classes, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.up(self.down(embedding))


@register("okd")
class OKD(Method):
    """A small module on the teacher's side learns with the student: z_t' = z_t + A(h_t), A low-rank, h_t the pooled
    vector that the teacher's classifier sees.

    Student: task_weight * task + weight * KD against z_t', which it cannot change.
    Module: module_task_weight * CE(z_t', y) + module_student_weight * KD(p', target q) + module_anchor_weight *
    KD(p', target p0), q of the student, which it cannot change, p0 of the unchanged teacher; all at `temperature`, with
    its T^2. Without the anchor the module may collapse to the student.

    The paper is about autoregressive language models, and only its abstract was at hand. Carried over: the teacher
    stays frozen but for small modules that are trained online with the student, and the student is never sampled from.
    Every formula here is a choice. Not carried over: whatever concerns sequences (exposure bias, on-policy data).

    The module's parameters are a group of the optimizer with module_learning_rate_factor and module_weight_decay. Its
    accuracy on the training images, in all and by group, is logged as module_accuracy; the deployed student has no part
    of it.
    """

    paper = (
        "Rao et al.: Exploring and Enhancing the Transfer of Distribution in Knowledge Distillation for Autoregressive "
        "Language Models, arXiv:2409.12512"
    )
    needs = Needs(embedding=True)

    def __init__(
        self,
        context: MethodContext,
        task_loss: TaskLoss,
        *,
        task_weight: NonNegative,
        weight: NonNegative,
        temperature: Positive,
        rank: PositiveInt,
        module_task_weight: NonNegative,
        module_student_weight: NonNegative,
        module_anchor_weight: NonNegative,
        module_learning_rate_factor: Positive,
        module_weight_decay: NonNegative,
    ) -> None:
        super().__init__(context, task_loss, task_weight=task_weight)
        self.weight = weight
        self.temperature = temperature
        self.module_task_weight = module_task_weight
        self.module_student_weight = module_student_weight
        self.module_anchor_weight = module_anchor_weight
        self.module_learning_rate_factor = module_learning_rate_factor
        self.module_weight_decay = module_weight_decay
        if context.teacher.embedding is None:
            raise UserError("method.name: okd needs the pooled vector that the teacher's classifier sees; it has none")
        self.module = LowRank(context.teacher.embedding.shape[1], rank, context.num_classes)

    def parameter_groups(self) -> list[dict[str, Any]]:
        module = list(self.module.parameters())
        others = [p for p in self.parameters() if p.requires_grad and all(p is not one for one in module)]
        options = {"learning_rate_factor": self.module_learning_rate_factor, "weight_decay": self.module_weight_decay}
        return [{"params": others}, {"params": module, **options}]

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        logits = teacher.logits.detach() + self.module(teacher.embedding.detach())
        self.record("module_accuracy", 100 * (logits.argmax(1) == batch.labels), batch.labels)
        return {  # losses.kd lets no gradient through to its second argument
            "kd": self.weight * losses.kd(student.logits, logits, temperature=self.temperature),
            "module_task": self.module_task_weight * losses.cross_entropy(logits, batch.labels),
            "module_student": self.module_student_weight
            * losses.kd(logits, student.logits, temperature=self.temperature),
            "module_anchor": self.module_anchor_weight
            * losses.kd(logits, teacher.logits, temperature=self.temperature),
        }


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

    paper = (
        "Xu et al.: Speculative Knowledge Distillation: Bridging the Teacher-Student Gap Through Interleaved Sampling, "
        "arXiv:2410.11325 (ICLR 2025)"
    )

    def __init__(
        self,
        context: MethodContext,
        task_loss: TaskLoss,
        *,
        task_weight: NonNegative,
        weight: NonNegative,
        temperature: Positive,
        k: PositiveInt,
        variant: Literal["keep", "curriculum"],
        proposal: Literal["argmax", "sampled"],
        student_temperature: Positive,
        teacher_temperature: Positive,
    ) -> None:
        super().__init__(context, task_loss, task_weight=task_weight)
        self.weight = weight
        self.temperature = temperature
        self.k = k
        self.variant = variant
        self.proposal = proposal
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        if k >= context.num_classes:
            raise UserError(
                f"method.k: should be less than the number of classes ({context.num_classes}), or every proposal is "
                f"accepted; got {k}"
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

    def __init__(
        self,
        context: MethodContext,
        task_loss: TaskLoss,
        *,
        task_weight: NonNegative,
        weight: NonNegative,
        temperature: Positive,
        reward_scale: Positive,
        divergence: Literal["reverse", "forward"],
        reference: str,
    ) -> None:
        super().__init__(context, task_loss, task_weight=task_weight)
        self.weight = weight
        self.temperature = temperature
        self.reward_scale = reward_scale
        self.divergence = losses.reverse_kl_to_target if divergence == "reverse" else losses.forward_kl_to_target
        self.reference = reference
        if reference == "prior":
            empty = (context.class_counts == 0).nonzero().flatten().tolist()
            if empty:
                raise UserError(
                    f"method.reference: prior needs a training image of every class; none of class {empty}. Choose "
                    "reference=student or another split"
                )
            log_prior = (context.class_counts / context.class_counts.sum()).log()
            self.register_buffer("log_prior", log_prior, persistent=False)

    @classmethod
    def further_teachers(
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
        reference = self.log_prior if self.reference == "prior" else batch.further_logits[0]
        loss = self.divergence(
            student.logits, teacher.logits, reference, reward_scale=self.reward_scale, temperature=self.temperature
        )
        return {"extrapolation": self.weight * loss}
