"""Distillation losses on logits, sample by sample.

Shapes: logits [B, C], target [B] (int64 class labels). Values are means over the batch and carry the factor T^2 that
keeps the size of the gradient independent of the temperature. Gradient flows to the student only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision

STANDARDIZE_EPSILON = 1e-7  # the public code's: added to the standard deviation


@full_precision
def kd(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Knowledge distillation: T^2 * KL(p || q), p = softmax(teacher / T), q = softmax(student / T).

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
    """
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@full_precision
def kd_per_image(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float | Tensor) -> Tensor:
    """`kd` of each image: [B]. The temperature may be a tensor, one value or [B, 1]; gradient flows to it as well,
    through both distributions and the factor T^2."""
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1, keepdim=True)
    return (temperature**2 * divergence).squeeze(1)


@full_precision
def standardize(logits: Tensor) -> Tensor:
    """Logits as z-scores over the classes, (z - mean) / (std + 1e-7) with the unbiased std: [B, C] -> [B, C].

    Gradient flows through mean and std. Equal logits become zeros, with a gradient of the order of 1e7 that torch's
    convention for the std at 0 keeps finite; two classes keep nothing but their order, +-0.71.
    Sun, Ren, Li, Wang, Cao: Logit Standardization in Knowledge Distillation, arXiv:2403.01427.
    """
    mean, std = logits.mean(dim=1, keepdim=True), logits.std(dim=1, keepdim=True)
    return (logits - mean) / (std + STANDARDIZE_EPSILON)


@full_precision
def nkd(student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, gamma: float, temperature: float) -> Tensor:
    """Normalised KD: -mean_b p_y log q_y at T = 1  -  gamma * T^2 * mean_b sum_{c != y} p'_c log q'_c at T.

    p' and q' are the distributions over the C - 1 other classes, renormalised. Both parts are cross-entropies: the
    value contains the teacher's entropy, the gradient does not. For two classes the second is 0.
    Yang, Zeng, Li, Zhang, Yuan, Li: From Knowledge Distillation to Self-Knowledge Distillation, arXiv:2303.13005.
    """
    row = target.unsqueeze(1)
    target_p = F.softmax(teacher_logits.detach(), dim=1).gather(1, row)
    target_log_q = F.log_softmax(student_logits, dim=1).gather(1, row)
    is_target = _is_target(student_logits, target)
    _, other_log_q = _split_log_odds(student_logits / temperature, is_target)
    _, other_log_p = _split_log_odds(teacher_logits.detach() / temperature, is_target)
    other_p = other_log_p.masked_fill(is_target, -torch.inf).exp()
    return -(target_p * target_log_q).mean() - gamma * temperature**2 * (other_p * other_log_q).sum(dim=1).mean()


@full_precision
def weighted_soft_labels(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, weight: float, temperature: float
) -> Tensor:
    """Weighted soft labels: weight * T^2 * mean_b w_b * CE(softmax(teacher / T), softmax(student / T)), with the
    weights of `soft_label_weights`. A cross-entropy: the value contains the teacher's entropy.

    Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang: Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance
    Tradeoff Perspective, arXiv:2102.00650.
    """
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    weights = soft_label_weights(student_logits, teacher_logits, target)
    return -weight * temperature**2 * (weights * (p * log_q).sum(dim=1)).mean()


@torch.no_grad()
@full_precision
def soft_label_weights(student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
    """WSL's weight of each image, 1 - exp(-CE(student) / (CE(teacher) + 1e-7)) on the labels at T = 1: [B], detached.

    Near 1 where the teacher has learnt the image by heart, small where the student is better than the teacher.
    """
    student, teacher = (
        F.cross_entropy(logits, target, reduction="none") for logits in (student_logits, teacher_logits)
    )
    return -torch.expm1(-student / (teacher + 1e-7))


def dkd(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """Decoupled knowledge distillation: alpha * target term + beta * non-target term of `dkd_terms`.

    Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, arXiv:2203.08679.
    """
    target_term, nontarget_term = dkd_terms(student_logits, teacher_logits, target, temperature=temperature)
    return alpha * target_term + beta * nontarget_term


@full_precision
def dkd_terms(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """The two unweighted parts of DKD (arXiv:2203.08679), each times T^2.

    The first is the KL divergence of the two-way distributions (target class, all others); the second is that of the
    distributions over the C - 1 other classes, renormalised; for C = 2 it is 0. Image by image, with the teacher's
    probability p_y of the target, KD = first + (1 - p_y) * second.
    """
    is_target = _is_target(student_logits, target)
    target_q, other_q = _split_log_odds(student_logits / temperature, is_target)
    target_p, other_p = _split_log_odds(teacher_logits.detach() / temperature, is_target)

    target_kl = sum(
        F.logsigmoid(sign * target_p).exp() * (F.logsigmoid(sign * target_p) - F.logsigmoid(sign * target_q))
        for sign in (1, -1)
    )
    # The target's column is finite and meets a probability of exactly 0: no mask value that large logits could exceed.
    p = other_p.masked_fill(is_target, -torch.inf).exp()
    other_kl = (p * (other_p - other_q)).sum(dim=1)
    return temperature**2 * target_kl.mean(), temperature**2 * other_kl.mean()


def _is_target(logits: Tensor, target: Tensor) -> Tensor:
    """Bool [B, C]: the label's column."""
    return torch.arange(logits.shape[1], device=target.device) == target.unsqueeze(1)


def _split_log_odds(logits: Tensor, is_target: Tensor) -> tuple[Tensor, Tensor]:
    """The target's log odds [B]; log probabilities [B, C] among the other classes (no meaning at the target)."""
    log_sum_others = logits.masked_fill(is_target, -torch.inf).logsumexp(dim=1, keepdim=True)
    target_logit = logits.masked_fill(~is_target, 0).sum(dim=1)
    return target_logit - log_sum_others.squeeze(1), logits - log_sum_others
