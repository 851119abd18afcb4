"""Reward extrapolation: a target beyond the teacher, seen from a reference.

target = softmax(z_ref + l (z_t - z_ref)), proportional to p_t^l / p_ref^(l - 1): l = 1 is the teacher, l > 1 goes on in
the direction that leads from the reference to it, 0 < l < 1 stops on the way.
Yang et al.: Learning beyond Teacher: Generalized On-Policy Distillation with Reward Extrapolation, arXiv:2602.12125.
"""

import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


@full_precision
def extrapolated_target(
    teacher_logits: Tensor, reference_logits: Tensor, *, reward_scale: float, temperature: float = 1.0
) -> Tensor:
    """Probabilities [B, C] of the target at a temperature; reference_logits [B, C] or [C]. No gradient."""
    return _log_target(teacher_logits, reference_logits, reward_scale, temperature).exp()


@full_precision
def reverse_kl_to_target(
    student_logits: Tensor,
    teacher_logits: Tensor,
    reference_logits: Tensor,
    *,
    reward_scale: float,
    temperature: float = 1.0,
) -> Tensor:
    """T^2 * KL(q || target), q = softmax(z_s / T), mean over the batch; gradient to the student only.

    G-OPD maximises E_q[l log(p_t / p_ref)] - KL(q || p_ref). Over classes the expectation is exact, and its negative,
    sum_c q [(log q - log p_ref) - l (log p_t - log p_ref)], is this divergence up to a constant.
    """
    log_target = _log_target(teacher_logits, reference_logits, reward_scale, temperature)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_target, log_q, reduction="batchmean", log_target=True)


@full_precision
def forward_kl_to_target(
    student_logits: Tensor,
    teacher_logits: Tensor,
    reference_logits: Tensor,
    *,
    reward_scale: float,
    temperature: float = 1.0,
) -> Tensor:
    """T^2 * KL(target || q): as KD, of the extrapolated teacher."""
    log_target = _log_target(teacher_logits, reference_logits, reward_scale, temperature)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_target, reduction="batchmean", log_target=True)


def _log_target(teacher_logits: Tensor, reference_logits: Tensor, reward_scale: float, temperature: float) -> Tensor:
    teacher, reference = teacher_logits.detach(), reference_logits.detach()
    return F.log_softmax((reference + reward_scale * (teacher - reference)) / temperature, dim=1)
