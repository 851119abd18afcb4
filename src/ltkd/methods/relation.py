"""Methods that compare the relations between the images of a batch: of its last maps (SP) or its pooled vectors.

All of them see the whole batch, and what is in it: at an imbalance of 100 most pairs are pairs of the head.
"""

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.methods.network_features import check_embeddings, check_stages
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive


@register("sp")
class SimilarityPreserving(Method):
    """task_weight * task + weight * `losses.similarity_preserving` of the last stage's maps, after the activation."""

    reads_batch = True
    paper = "Tung, Mori: Similarity-Preserving Knowledge Distillation, arXiv:1907.09682"
    fidelity = "faithful"
    needs = Needs(stages=True)

    weight: NonNegative

    def build(self, context: MethodContext) -> None:
        check_stages(self.name, context, last_only=True)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        return {"similarity": self.weight * losses.similarity_preserving(student.stages[-1], teacher.stages[-1])}


@register("rkd")
class RKD(Method):
    """task_weight * task + distance_weight * distance + angle_weight * angle of `losses.relational_terms`."""

    reads_batch = True
    paper = "Park et al.: Relational Knowledge Distillation, arXiv:1904.05068"
    fidelity = "faithful"
    needs = Needs(embedding=True)

    distance_weight: NonNegative
    angle_weight: NonNegative

    def build(self, context: MethodContext) -> None:
        check_embeddings(self.name, context)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        distance, angle = losses.relational_terms(student.embedding, teacher.embedding)
        return {"rkd_distance": self.distance_weight * distance, "rkd_angle": self.angle_weight * angle}


@register("pkt")
class PKT(Method):
    """task_weight * task + weight * `losses.pkt` of the pooled vectors."""

    reads_batch = True
    paper = "Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, arXiv:1803.10837"
    fidelity = "faithful"
    needs = Needs(embedding=True)

    weight: NonNegative

    def build(self, context: MethodContext) -> None:
        check_embeddings(self.name, context)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        return {"pkt": self.weight * losses.pkt(student.embedding, teacher.embedding)}


@register("cc")
class CorrelationCongruence(Method):
    """task_weight * task + weight * congruence of the pooled vectors, each embedded by a trained linear layer.

    form: neighbours (`losses.correlation_congruence`: what the authors shared, not a correlation, dependent on the
    order of the batch) or kernel (`losses.correlation_congruence_kernel`: the paper's, with gamma and order). The paper
    draws class-uniform batches; here they are the recipe's. Both embeddings are trained, as in the authors' code, so
    that two constant ones would be a trivial solution.
    """

    reads_batch = True
    paper = "Peng et al.: Correlation Congruence for Knowledge Distillation, arXiv:1904.01802"
    fidelity = "faithful"
    needs = Needs(embedding=True)

    weight: NonNegative
    dimensions: Annotated[int, Ge(1)]
    form: Literal["neighbours", "kernel"]
    gamma: Positive
    order: Annotated[int, Ge(1)]

    def build(self, context: MethodContext) -> None:
        check_embeddings(self.name, context)
        self.student_embedding = nn.Linear(context.student.embedding.shape[1], self.dimensions)
        self.teacher_embedding = nn.Linear(context.teacher.embedding.shape[1], self.dimensions)

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        embeddings = self.student_embedding(student.embedding), self.teacher_embedding(teacher.embedding.detach())
        if self.form == "neighbours":
            value = losses.correlation_congruence(*embeddings)
        else:
            value = losses.correlation_congruence_kernel(*embeddings, gamma=self.gamma, order=self.order)
        return {"congruence": self.weight * value}
