"""Decoupled forms of the Kullback-Leibler divergence: a soft cross-entropy and a weighted error of logit differences.

Shapes: logits [B, C], target [B] (int64 class labels), class_means [C, C] (row y: the mean of the teacher's
probabilities over the images of class y). The logit differences are those of the raw logits, whatever the temperature,
and the cross-entropy carries no factor T^2. Gradient flows to the student only.

Cui et al.: Decoupled Kullback-Leibler Divergence Loss, arXiv:2305.13948 (IKL); Generalized Kullback-Leibler Divergence
Loss, arXiv:2503.08038 (GKL).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


@full_precision
def gkl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    class_means: Tensor | None = None,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    temperature: float,
    weight_temperature: float = 1.0,
    normalise_images: bool = False,
) -> Tensor:
    """Generalised KL: alpha * softCE + beta * wMSE, arXiv:2503.08038.

        softCE = -mean_b sum_c p_c log q_c,  p = softmax(teacher / T), q = softmax(student / T)
        wMSE = 1/4 sum_b sum_ij u_i u_j ((t_i - t_j) - (s_i - s_j))^2 / sum_b sum_ij u_i u_j

    u = class_means[y]^gamma; without class_means softmax(teacher / weight_temperature)^gamma. The power is not
    renormalised, so that with gamma < 1 images whose u is flat weigh more; `normalise_images` gives every image the
    same weight.
    """
    if class_means is None:
        log_u = F.log_softmax(teacher_logits.detach() / weight_temperature, dim=1)
        u = (gamma * log_u).exp()  # as a logarithm: an underflowed probability would have the power 0
    else:
        u = class_means.detach().to(student_logits.dtype)[target] ** gamma
    errors, mass = _difference_errors(student_logits, teacher_logits, u), u.sum(dim=1).square()
    error = (errors / mass).mean() if normalise_images else errors.sum() / mass.sum()
    return alpha * _soft_cross_entropy(student_logits, teacher_logits, temperature) + beta * error / 4


@full_precision
def ikl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    class_means: Tensor | None = None,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    weight_temperature: float = 1.0,
) -> Tensor:
    """Improved KL, arXiv:2305.13948: as `gkl` with gamma 1, but the sum over pairs is divided by the batch size B."""
    if class_means is None:
        u = F.softmax(teacher_logits.detach() / weight_temperature, dim=1)
    else:
        u = class_means.detach().to(student_logits.dtype)[target]
    error = _difference_errors(student_logits, teacher_logits, u).mean()
    return alpha * _soft_cross_entropy(student_logits, teacher_logits, temperature) + beta * error / 4


@torch.no_grad()
@full_precision
def class_mean_probabilities(teacher_logits: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """Mean of softmax(teacher / T) over the images of each class, [C, C]; the uniform row for a class without any."""
    sums, counts = class_sums(F.softmax(teacher_logits / temperature, dim=1), target)
    uniform = torch.full_like(sums, 1 / len(sums))
    return torch.where(counts > 0, sums / counts.clamp(min=1), uniform)


@full_precision
def class_sums(probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(sums [C, C] of the rows with label c, their number [C, 1]) of probabilities [B, C]."""
    # a product: adding rows at indices has no fixed order on a GPU
    member = (torch.arange(probabilities.shape[1], device=target.device).unsqueeze(1) == target).to(probabilities.dtype)
    return member @ probabilities, member.sum(dim=1, keepdim=True)


def _soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    return -(p * F.log_softmax(student_logits / temperature, dim=1)).sum(dim=1).mean()


def _difference_errors(student_logits: Tensor, teacher_logits: Tensor, u: Tensor) -> Tensor:
    """[B]: sum_ij u_i u_j (e_i - e_j)^2 with e = t - s, as 2 (sum u) (sum u (e - mean_u e)^2): no [B, C, C] tensor."""
    mass = u.sum(dim=1, keepdim=True)
    error = teacher_logits.detach() - student_logits
    centred = error - (u * error).sum(dim=1, keepdim=True) / mass
    return 2 * mass.squeeze(1) * (u * centred.square()).sum(dim=1)
