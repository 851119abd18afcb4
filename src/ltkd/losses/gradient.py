"""A loss on gradients: what a change of the image does to the network's own loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision

EPSILON = 1e-12  # inside the root, whose slope at 0 is infinite


def input_gradient_alignment(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, images: Tensor, *, squared: bool = False
) -> Tensor:
    """mean_b || g_s(b) - g_t(b) ||_2, or its square, with g(b) = d CE(z(b), y(b)) / d x(b) of student and teacher.

    Shao et al.: How and When Adversarial Robustness Transfers in Knowledge Distillation?, arXiv:2110.12072.

    logits [B, C] and target [B]; images [B, ...] are float32 or better, require a gradient, and both logits come of
    them. The sum, not the mean, of the batch's cross-entropies is differentiated: each image's gradient is its own and
    does not shrink with the batch. (Batch normalisation that trains mixes the images; then it is the gradient of all
    their losses.) The result has a graph to the student's weights, through second derivatives. The teacher's graph
    ends here and is freed.
    """
    student = _input_gradient(student_logits, target, images, create_graph=True)
    teacher = _input_gradient(teacher_logits, target, images, create_graph=False)
    distance = (student - teacher).flatten(1).square().sum(dim=1)
    return distance.mean() if squared else (distance + EPSILON).sqrt().mean()


def _input_gradient(logits: Tensor, target: Tensor, images: Tensor, create_graph: bool) -> Tensor:
    loss = _summed_cross_entropy(logits, target)
    with torch.autocast(images.device.type, enabled=False):  # the backward pass has the forward pass's types already
        (gradient,) = torch.autograd.grad(loss, images, create_graph=create_graph)
    return gradient


@full_precision
def _summed_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, reduction="sum")
