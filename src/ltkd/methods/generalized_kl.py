"""GKL and IKL: a soft cross-entropy and an error of logit differences, weighted by the teacher's class means."""

import torch
from torch import Tensor, nn

from ltkd import losses
from ltkd.data.batch import Batch
from ltkd.methods.base import Method, MethodContext, register
from ltkd.models.output import ModelOutput
from ltkd.ranges import Fraction, NonNegative, Positive


class _ClassInformation(Method):
    """A method whose weights are the teacher's mean prediction of each class, over the previous epoch's batches.

    In the first epoch all means are 1 / C; a class without an image in an epoch keeps its row. Without
    `class_information` every image's own prediction gives the weights. Means and running sums are in the checkpoint.
    """

    alpha: NonNegative
    beta: NonNegative
    temperature: Positive
    weight_temperature: Positive
    class_information: bool
    warmup_fraction: Fraction

    def build(self, context: MethodContext) -> None:
        if self.class_information:
            classes = context.num_classes
            self.register_buffer("class_means", torch.full((classes, classes), 1 / classes))
            self.register_buffer("sums", torch.zeros(classes, classes))
            self.register_buffer("counts", torch.zeros(classes, 1))

    def means_of_classes(self, teacher: ModelOutput, batch: Batch) -> Tensor | None:
        """[C, C], or None without class information. Adds the batch to the sums of the current epoch."""
        if not self.class_information:
            return None
        if self.training:
            with torch.no_grad():
                logits = teacher.logits.to(self.sums.dtype) / self.weight_temperature
                sums, counts = losses.class_sums(logits.softmax(dim=1), batch.labels)
                self.sums += sums
                self.counts += counts
        return self.class_means

    @torch.no_grad()
    def end_epoch(self, model: nn.Module) -> None:
        super().end_epoch(model)
        if self.class_information:
            means = torch.where(self.counts > 0, self.sums / self.counts.clamp(min=1), self.class_means)
            self.class_means.copy_(means)
            self.sums.zero_()
            self.counts.zero_()


@register("gkl")
class GKL(_ClassInformation):
    """task_weight * task + warm-up * (alpha * softCE + beta * wMSE), without a factor T^2, as the public code.

        softCE = -mean_b sum_c p_c log q_c at T
        wMSE = 1/4 sum_b sum_ij u_i u_j ((t_i - t_j) - (s_i - s_j))^2 / sum_b sum_ij u_i u_j on the raw logits

    u = the class's mean prediction of the teacher (at weight_temperature, over the previous epoch), to the power gamma;
    without class_information the image's own prediction. With gamma < 1 classes of which the teacher is unsure, mostly
    those of the tail, weigh more; normalise_images gives every image the same weight (ours, off by default).
    The public code loses the class means on a resume; here they are part of the checkpoint.
    """

    reads_labels = True
    reads_batch = True
    paper = "Cui et al.: Generalized Kullback-Leibler Divergence Loss, arXiv:2503.08038"
    fidelity = "faithful"

    gamma: NonNegative
    normalise_images: bool

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        means = self.means_of_classes(teacher, batch)
        loss = losses.gkl(
            student.logits, teacher.logits, batch.labels, means, alpha=self.alpha, beta=self.beta, gamma=self.gamma,
            temperature=self.temperature, weight_temperature=self.weight_temperature,
            normalise_images=self.normalise_images,
        )  # fmt: skip
        return {"gkl": loss}


@register("ikl")
class IKL(_ClassInformation):
    """task_weight * task + warm-up * (alpha * softCE + beta * wMSE): GKL with gamma 1, as the public code.

    The sum over pairs of classes is divided by the batch size; at the default weight_temperature of 100 the weights are
    nearly uniform, each pair's 1 / C^2.
    """

    reads_labels = True
    reads_batch = True
    paper = "Cui et al.: Decoupled Kullback-Leibler Divergence Loss, arXiv:2305.13948 (NeurIPS 2024)"
    fidelity = "faithful"

    def distill(self, student: ModelOutput, teacher: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        means = self.means_of_classes(teacher, batch)
        loss = losses.ikl(
            student.logits, teacher.logits, batch.labels, means, alpha=self.alpha, beta=self.beta,
            temperature=self.temperature, weight_temperature=self.weight_temperature,
        )  # fmt: skip
        return {"ikl": loss}
