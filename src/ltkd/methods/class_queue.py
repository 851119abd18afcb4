"""GML: KD between cosine classifiers, and a contrast of the student's features with a queue of the teacher's."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.losses.precision import full_precision
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.methods.network_features import check_embeddings
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive, PositiveInt
from ltkd.task_losses.class_counts import check_every_class


@register("gml")
class GML(Method):
    """task_weight * task + kd_weight * KD + contrast_weight * (contrast + contrast of the temperature). Adapted.

    Contrast: CE(S + log pi, y), S_bc = log mean over the keys k of class c of exp(q_b . k / tau).
    q: the student's pooled vector of the image's second view, through a projection (linear, normalisation, ReLU,
    linear), of unit length. Keys: a queue of the teacher's pooled vectors of the first view through a projection of
    their own, all anew in each step. The queue has slots_per_class slots for each class and shares out the rest by
    class frequency; it begins with random vectors. Both projections and the student learn from the contrast, the
    temperature from the same one on constant vectors and without the image's own key. Queue, its labels' pointers and
    the temperature are part of the checkpoint.
    The paper's networks have cosine classifiers of scale 30 (student.classifier, teacher.classifier), so that KD is
    `losses.cosine_kd`, and both learn with the balanced softmax. There three views have the recipe's own augmentation
    (AutoAugment and Cutout) and the student's two share a forward pass; here the teacher's keys are those of the view
    that it classifies, the second view is crop, flip and RandAugment, and each has a pass, hence a normalisation, of
    its own. The table's cost is of a batch of 4, where the queue's projection, the same for any batch, weighs most.
    """

    reads_labels = True
    reads_batch = True
    paper = (
        "Suh, Seo: Long-Tailed Recognition by Mutual Information Maximization between Latent Features and Ground-Truth "
        "Labels, arXiv:2305.01160 (ICML 2023)"
    )
    fidelity = "adapted"
    needs = Needs(embedding=True, second_view=True, networks=True)
    made_for: ClassVar = {
        "teacher.classifier": "cosine",
        "teacher.task_loss": "balanced_softmax",
        "student.classifier": "cosine",
        "student.task_loss": "balanced_softmax",
    }

    kd_weight: NonNegative
    kd_temperature: Positive
    contrast_weight: NonNegative
    dimensions: PositiveInt
    queue_size: PositiveInt
    slots_per_class: Annotated[int, Ge(2)]  # with one, an image's own key may be the only one of its class
    initial_temperature: Positive

    def build(self, context: MethodContext) -> None:
        check_embeddings(self.name, context)
        check_every_class("method.name: gml", context.class_counts, remedy="method=kd")
        self.run_student = context.networks.student
        widths = context.student.embedding.shape[1], context.teacher.embedding.shape[1]
        self.student_projection, self.teacher_projection = (Projection(width, self.dimensions) for width in widths)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(self.initial_temperature)))
        self.register_buffer("class_counts", context.class_counts.clone(), persistent=False)
        sizes = queue_slots(context.class_counts.tolist(), self.queue_size, self.slots_per_class)
        self.queue = ClassQueue(sizes, widths[1])

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        if self.training:
            self.queue.push(teacher.embedding.detach(), batch.labels, batch.index)  # before: an image sees its own key
        query = self.student_projection(self.run_student(batch.second_view).embedding)
        keys = self.teacher_projection(self.queue.vectors)
        pairs = (query, keys, batch.labels, self.queue.labels, self.class_counts)
        of_other_images = self.queue.index != batch.index.unsqueeze(1)
        contrasts = {
            "contrast": losses.queue_contrast(*pairs, temperature=self.log_temperature.detach().exp()),
            "temperature": losses.queue_contrast(*pairs, of_other_images, self.log_temperature),
        }
        kd = losses.kd(student.logits, teacher.logits, temperature=self.kd_temperature)
        return {"kd": self.kd_weight * kd} | {name: self.contrast_weight * term for name, term in contrasts.items()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        projections = [*self.student_projection.parameters(), *self.teacher_projection.parameters()]
        return [{"params": projections}, {"params": [self.log_temperature], "weight_decay": 0.0}]


class Projection(nn.Sequential):
    """Vectors [B, width] to unit vectors [B, dimensions] through a hidden layer of the same width."""

    def __init__(self, width: int, dimensions: int) -> None:
        hidden = nn.Linear(width, width, bias=False)  # the normalisation takes a bias out again
        super().__init__(hidden, nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, dimensions))

    def forward(self, vectors: Tensor) -> Tensor:
        return full_precision(losses.unit_vectors)(super().forward(vectors))


class ClassQueue(nn.Module):
    """The latest vectors of each class, in a ring of slots of its own."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        slots = torch.tensor(sizes)
        self.register_buffer("sizes", slots, persistent=False)
        self.register_buffer("starts", slots.cumsum(0) - slots, persistent=False)
        self.register_buffer("labels", torch.repeat_interleave(torch.arange(len(slots)), slots), persistent=False)
        self.register_buffer("vectors", losses.unit_vectors(torch.randn(len(self.labels), width)))
        self.register_buffer("index", torch.full((len(self.labels),), -1))  # of the image; -1: random still
        self.register_buffer("pointers", torch.zeros_like(slots))  # next slot of each class

    @torch.no_grad()
    def push(self, vectors: Tensor, labels: Tensor, index: Tensor) -> None:
        """Put vectors [B, D] of images [B] in; of a class with more of them than slots, the first ones."""
        alike = labels.unsqueeze(1) == labels
        place = alike.tril(-1).sum(1)  # among the batch's images of the class
        sizes = self.sizes[labels]
        slot = self.starts[labels] + (self.pointers[labels] + place) % sizes
        # [K, B] which image a slot takes: a scatter would have to leave the surplus out, which takes a look at values
        takes = (torch.arange(len(self.labels), device=labels.device).unsqueeze(1) == slot) & (place < sizes)
        taken, source = takes.any(1), takes.int().argmax(1)
        self.vectors.copy_(torch.where(taken.unsqueeze(1), vectors.to(self.vectors.dtype)[source], self.vectors))
        self.index.copy_(torch.where(taken, index[source], self.index))
        classes = torch.arange(len(self.sizes), device=labels.device).unsqueeze(1)
        arrived = (classes == labels).sum(1).minimum(self.sizes)
        self.pointers.copy_((self.pointers + arrived) % self.sizes)


def queue_slots(class_counts: Sequence[int], queue_size: int, slots_per_class: int) -> list[int]:
    """The slots of each class: slots_per_class, and a share of the rest by frequency; together queue_size.

    Class c's end at ceil(slots_per_class * (c + 1) + rest * (n_0 + ... + n_c) / N). UserError where the queue is too
    small.
    """
    number, total = len(class_counts), sum(class_counts)
    rest = queue_size - slots_per_class * number
    if rest < 0:
        raise UserError(
            f"method.queue_size: {number} classes with {slots_per_class} slots each need {slots_per_class * number}, "
            f"got {queue_size}"
        )
    ends, seen = [0], 0
    for position, count in enumerate(class_counts):
        seen += count
        ends.append(slots_per_class * (position + 1) - (-rest * seen // total))  # - (-a // b) rounds up
    return [end - start for start, end in pairwise(ends)]
