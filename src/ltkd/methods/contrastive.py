"""CRD: tell an image's own partner in the other network from images of other classes."""

from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.errors import UserError
from ltkd.methods.base import Method, MethodContext, Needs, register
from ltkd.methods.network_features import check_embeddings
from ltkd.models.output import ModelOutput
from ltkd.ranges import NonNegative, Positive


@register("crd")
class CRD(Method):
    """task_weight * task + weight * (student's NCE + teacher's NCE) + kd_weight * KD.

    Both pooled vectors are embedded by a trained linear layer and scaled to unit norm. A memory of each network's
    embeddings has a row per training image; student anchors are scored against the teacher's memory and the other way
    round. The positive is the image's own row ("exact" mode), the negatives are rows of images of other classes, drawn
    anew at each step, uniformly and with replacement. Their number is negatives, at most as many as the class with the
    fewest has: at an imbalance of 100, CIFAR-100 has 10,847 images, fewer than the paper's 16,384.
    Z is N times the mean of the first batch's scores, then constant. Memories and Z are saved with a checkpoint.
    Several processes have the same memories: each computes the terms of the whole batch.
    """

    reads_labels = True
    reads_batch = True
    paper = "Tian, Krishnan, Isola: Contrastive Representation Distillation, arXiv:1910.10699"
    fidelity = "faithful"
    needs = Needs(embedding=True)

    weight: NonNegative
    kd_weight: NonNegative
    kd_temperature: Positive
    dimensions: Annotated[int, Ge(1)]
    negatives: Annotated[int, Ge(1)]
    temperature: Annotated[float, Ge(0.02)]  # below, exp(1 / temperature) leaves float32
    momentum: Annotated[float, Ge(0), Lt(1)]

    def build(self, context: MethodContext) -> None:
        check_embeddings(self.name, context)
        self.student_embedding = nn.Linear(context.student.embedding.shape[1], self.dimensions)
        self.teacher_embedding = nn.Linear(context.teacher.embedding.shape[1], self.dimensions)
        self.other_classes = ClassNegatives(context.train_labels, context.num_classes)
        self.num_data = len(context.train_labels)
        self.num_negatives = min(self.negatives, self.other_classes.fewest)
        bound = (3 / self.dimensions) ** 0.5  # about unit norm
        for role in ("student", "teacher"):
            memory = torch.empty(self.num_data, self.dimensions).uniform_(-bound, bound)
            self.register_buffer(f"{role}_memory", memory)
            self.register_buffer(f"{role}_constant", torch.zeros(()))  # Z; 0: no batch yet

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        of_student = self.student_embedding(student.embedding)
        of_teacher = self.teacher_embedding(teacher.embedding.detach())
        counts = self.other_classes.draw(batch.labels, self.num_negatives)
        sides = {
            "crd_student": (of_student, self.teacher_memory, self.student_constant),
            "crd_teacher": (of_teacher, self.student_memory, self.teacher_constant),
        }
        terms = {name: self.weight * self._nce(*side, counts, batch.index) for name, side in sides.items()}
        if self.training:
            self._remember(self.student_memory, of_student, batch.index)
            self._remember(self.teacher_memory, of_teacher, batch.index)
        if self.kd_weight:
            terms["kd"] = self.kd_weight * losses.kd(student.logits, teacher.logits, temperature=self.kd_temperature)
        return terms

    def _nce(self, anchor: Tensor, memory: Tensor, constant: Tensor, counts: Tensor, index: Tensor) -> Tensor:
        # Scores of all N rows, B * N values, instead of copying the drawn rows, B * K * dimensions of them. A copy of
        # the memory, because it changes before the gradient needs it.
        scores = losses.crd_scores(anchor, memory.clone(), temperature=self.temperature)
        positive = scores.gather(1, index.unsqueeze(1))
        with torch.no_grad():
            mean = (positive.sum() + (counts * scores).sum()) / (len(counts) * (1 + self.num_negatives))
            z = torch.where(constant > 0, constant, self.num_data * mean)  # a tensor decides: no wait for the device
            if self.training:
                constant.copy_(z)
        return losses.crd_nce(torch.cat((positive, scores), dim=1) / z, counts, num_data=self.num_data)

    @torch.no_grad()
    def _remember(self, memory: Tensor, embedding: Tensor, index: Tensor) -> None:
        # A batch may hold an image twice (sampling by class): its first occurrence counts, whichever is written last.
        first = (index.unsqueeze(1) == index).int().argmax(dim=1)
        now = losses.unit_vectors(embedding.to(memory.dtype)).index_select(0, first)
        before = memory.index_select(0, index)
        memory.index_copy_(0, index, losses.unit_vectors(self.momentum * before + (1 - self.momentum) * now))


class ClassNegatives(nn.Module):
    """Draws training images of other classes than a label's, for class sizes of any kind, in one step.

    The rows are sorted by class, so that a label's own images form one block: a number drawn below N - n_c is a
    position among the others once it has skipped that block.
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        super().__init__()
        sizes = torch.bincount(labels, minlength=num_classes)
        self.num_rows = len(labels)
        self.fewest = self.num_rows - int(sizes.max())  # negatives of the largest class
        if self.fewest == 0:
            raise UserError("method crd: needs training images of two classes, all are of one")
        # determined by the data set: a checkpoint need not carry them
        self.register_buffer("rows", labels.argsort(stable=True), persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)

    def draw(self, labels: Tensor, number: int) -> Tensor:
        """Counts the draws of each row among `number` draws with replacement, for each label: float [B, N].

        Counts, because a GPU adds up what several draws of one row contribute in any order; whole numbers do not mind.
        """
        size, start = self.sizes[labels].unsqueeze(1), self.starts[labels].unsqueeze(1)
        # int64 draws modulo the number of others: a bias of 2^-40, where random floats have only 2^24 values
        draws = torch.randint(2**62, (len(labels), number), device=labels.device) % (self.num_rows - size)
        rows = self.rows[torch.where(draws < start, draws, draws + size)]
        counts = torch.zeros(len(labels), self.num_rows, device=labels.device)
        return counts.scatter_add_(1, rows, torch.ones_like(rows, dtype=counts.dtype))
