"""A part of the teacher that learns with the student."""

from typing import Any

from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive, PositiveInt


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

    reads_labels = True
    paper = (
        "Rao et al.: Exploring and Enhancing the Transfer of Distribution in Knowledge Distillation for Autoregressive "
        "Language Models, arXiv:2409.12512"
    )
    fidelity = "inspired"
    needs = Needs(embedding=True)

    weight: NonNegative
    temperature: Positive
    rank: PositiveInt
    module_task_weight: NonNegative
    module_student_weight: NonNegative
    module_anchor_weight: NonNegative
    module_learning_rate_factor: Positive
    module_weight_decay: NonNegative

    def build(self, context: MethodContext) -> None:
        if context.teacher.embedding is None:
            raise UserError("method.name: okd needs the pooled vector that the teacher's classifier sees; it has none")
        self.module = LowRank(context.teacher.embedding.shape[1], self.rank, context.num_classes)

    def parameter_groups(self) -> list[dict[str, Any]]:
        module = list(self.module.parameters())
        other_parameters = [
            parameter
            for parameter in self.parameters()
            if parameter.requires_grad and all(parameter is not module_parameter for module_parameter in module)
        ]
        options = {"learning_rate_factor": self.module_learning_rate_factor, "weight_decay": self.module_weight_decay}
        return [{"params": other_parameters}, {"params": module, **options}]

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
