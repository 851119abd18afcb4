"""CBD: the direction of the teacher's features, on batches that are drawn evenly over the classes."""

from typing import ClassVar

from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.methods.network_features import check_embeddings
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative


@register("cbd")
class ClassBalancedDistillation(Method):
    """task_weight * task + weight * mean_b (1 - cos(relu(A f_s + a), f_t)), f the pooled vectors, A and a trained.

    The paper trains the student on class-balanced batches (student.recipe.sampling) with a cosine classifier
    (student.classifier), and its teachers, of the student's architecture, on all images alike with a cosine classifier
    too. There the student's classifier sees the projected vector, and the projection is deployed: ResNet-50 grows by
    17 million parameters. Here it sees the pooled vector as in every other method, so that the deployed network is the
    student, and there is one teacher in place of up to four.
    """

    paper = (
        "Iscen, Araujo, Gong, Schmid: Class-Balanced Distillation for Long-Tailed Visual Recognition, "
        "arXiv:2104.05279 (BMVC 2021)"
    )
    fidelity = "adapted"
    needs = Needs(embedding=True)
    made_for: ClassVar = {
        "teacher.classifier": "cosine",
        "student.classifier": "cosine",
        "student.recipe.sampling": "class_balanced",
    }

    weight: NonNegative

    def build(self, context: MethodContext) -> None:
        check_embeddings(self.name, context)
        self.projection = nn.Linear(context.student.embedding.shape[1], context.teacher.embedding.shape[1])

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        projected = self.projection(student.embedding).relu()
        return {"features": self.weight * losses.cosine_distance(projected, [teacher.embedding])}
