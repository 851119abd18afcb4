"""Distillation losses on logits, sample by sample.

Shapes: logits [B, C], target [B] (int64 class labels). Values are means over the batch and carry the factor T^2 that
keeps the size of the gradient independent of the temperature. Gradient flows to the student only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


@full_precision
def kd(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Knowledge distillation: T^2 * KL(p || q), p = softmax(teacher / T), q = softmax(student / T).

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
    """
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


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
    is_target = torch.arange(student_logits.shape[1], device=target.device) == target.unsqueeze(1)
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


def _split_log_odds(logits: Tensor, is_target: Tensor) -> tuple[Tensor, Tensor]:
    """The target's log odds [B]; log probabilities [B, C] among the other classes (no meaning at the target)."""
    log_sum_others = logits.masked_fill(is_target, -torch.inf).logsumexp(dim=1, keepdim=True)
    target_logit = logits.masked_fill(~is_target, 0).sum(dim=1)
    return target_logit - log_sum_others.squeeze(1), logits - log_sum_others
