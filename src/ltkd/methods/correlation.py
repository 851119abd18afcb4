"""Methods that match correlations and rankings of the outputs, and not the outputs themselves."""

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import Fraction, NonNegative, Positive


@register("dist")
class DIST(Method):
    """task_weight * task + T^2 * (beta * (1 - correlation over classes) + gamma * (1 - correlation over the batch))."""

    reads_batch = True
    paper = "Huang et al.: Knowledge Distillation from A Stronger Teacher, arXiv:2205.10536"
    fidelity = "faithful"

    beta: NonNegative
    gamma: NonNegative
    temperature: Positive
    scale_free: bool

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        logits = (student.logits, teacher.logits)
        options = {"temperature": self.temperature, "scale_free": self.scale_free}
        return {
            "dist_inter": losses.dist(*logits, beta=self.beta, gamma=0.0, **options),
            "dist_intra": losses.dist(*logits, beta=0.0, gamma=self.gamma, **options),
        }


@register("cmkd")
class CMKD(Method):
    """task_weight * task + weight * mean_b (1 - d_b) (1 - Pearson_b) + d_b (1 - Spearman_b), on standardised logits.

    Both coefficients, differentiable ranks, z-scores and weights by the difficulty of each image are the paper's. What
    its difficulty is, T and the weights could not be confirmed, and are ours: d_b = the entropy of the teacher's
    softmax(z / T) divided by log C, on the logits as they are ("entropy"), or one share for all images (a number).
    d is logged. rank_strength: strength of the soft ranks in units of 1 / C, the distance of neighbours among C
    standardised logits; see `losses.soft_rank`.
    """

    paper = (
        "Niu et al.: Efficient and Robust Knowledge Distillation from A Stronger Teacher Based on Correlation "
        "Matching, arXiv:2410.06561"
    )
    fidelity = "inspired"

    weight: NonNegative
    temperature: Positive
    difficulty: Fraction | Literal["entropy"]
    rank_strength: Positive

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        difficulty = losses.normalized_entropy(teacher.logits, temperature=self.temperature)
        if self.difficulty != "entropy":
            difficulty = torch.full_like(difficulty, self.difficulty)
        self.record("difficulty", difficulty, batch.labels)
        loss = losses.correlation_matching(
            student.logits, teacher.logits, difficulty, temperature=self.temperature, rank_strength=self.rank_strength
        )
        return {"cmkd": self.weight * loss}


@register("rlkd")
class RLKD(Method):
    """task_weight * task + rank_weight * ranking loss over the top k + kd_weight * KD at T.

    Written for language models, where it is applied at each position of a sequence; here an image takes the place of a
    position, and all else carries over. Only the peaks are ranked: the KD term carries what is outside the top k.
    dynamic: each image's KD is multiplied by the share of the top k that student and teacher have in common.
    """

    paper = (
        "Peng, Zhang: Enhancing Knowledge Distillation of Large Language Models through Efficient Multi-Modal "
        "Distribution Alignment, arXiv:2409.12545"
    )
    fidelity = "adapted"

    rank_weight: NonNegative
    kd_weight: NonNegative
    k: Annotated[int, Ge(2)]
    strength: Positive
    temperature: Positive
    dynamic: bool

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        logits = (student.logits, teacher.logits)
        if self.dynamic:
            kd = losses.overlap_weighted_kd(*logits, k=self.k, temperature=self.temperature)
        else:
            kd = losses.kd(*logits, temperature=self.temperature)
        ranking = losses.ranking_loss(*logits, k=self.k, strength=self.strength)
        return {"ranking": self.rank_weight * ranking, "kd": self.kd_weight * kd}
