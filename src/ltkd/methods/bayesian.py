"""A teacher that is the mean over samples of its posterior."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive, PositiveInt

logger = logging.getLogger(__name__)

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
                    swag_epochs further epochs (arXiv:1902.02476; runs/swag.py). All are in memory beside the teacher.
    The paper's own posteriors, variational with inducing weights and Laplace on the last layer, are not offered.

    A setting of another posterior than the chosen one is null in conf/method/bayesian.yaml.
    """

    paper = (
        "Morad, Shlezinger, Eldar: SGD-Based Knowledge Distillation with Bayesian Teachers: Theory and Guidelines, "
        "arXiv:2601.01484 (ICLR 2026)"
    )
    fidelity = "adapted"

    weight: NonNegative
    teacher_temperature: Positive
    student_temperature: Positive
    posterior: Literal["ensemble", "mc_dropout", "swag"]
    samples: PositiveInt
    dropout: Annotated[float, Gt(0), Lt(1)] | None
    swag_epochs: Annotated[int, Ge(2)] | None
    swag_learning_rate: Positive | None
    swag_rank: Annotated[int, Ge(2)] | None

    def build(self, context: MethodContext) -> None:
        for posterior, settings in SETTINGS_OF_POSTERIOR.items():
            for key in settings:
                if posterior != self.posterior and getattr(self, key) is not None:
                    logger.warning("method.%s has no effect with method.posterior=%s", key, self.posterior)
        if self.posterior == "mc_dropout":
            self.needs, self.reads_batch = Needs(embedding=True), True
            classifier = context.networks.teacher_classifier
            if classifier is None or context.teacher.embedding is None or isinstance(classifier, nn.Conv2d):
                raise UserError(
                    "method.posterior: mc_dropout needs a teacher whose logits come from one linear layer on a pooled "
                    "vector; this one's do not. Choose ensemble or swag, or another teacher"
                )
            self._networks = context.networks  # not the layer itself: a module in a method is saved and trained with it

    @classmethod
    def extra_teachers(
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
            student.logits,
            self._logit_samples(teacher, batch),
            teacher_temperature=self.teacher_temperature,
            student_temperature=self.student_temperature,
        )
        return {"kd": self.weight * loss}

    @torch.no_grad()
    def _logit_samples(self, teacher: ModelOutput, batch: Batch) -> Tensor:
        """[S, B, C]."""
        if self.posterior == "ensemble":
            return torch.stack((teacher.logits, *batch.extra_logits))
        if self.posterior == "swag":
            return torch.stack(batch.extra_logits)
        embeddings = teacher.embedding.repeat(self.samples, 1)
        return self._networks.teacher_classifier(F.dropout(embeddings, self.dropout)).unflatten(0, (self.samples, -1))
