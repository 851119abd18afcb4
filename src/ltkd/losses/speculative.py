"""The acceptance rule of speculative knowledge distillation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


@full_precision
def speculative_acceptance(proposal: Tensor, teacher_logits: Tensor, *, k: int) -> Tensor:
    """Checks if each proposed class is among the teacher's top k: proposal [B] (int64), logits [B, C] -> bool [B].

    Xu et al.: Speculative Knowledge Distillation, arXiv:2410.11325 (ICLR 2025); there of tokens.
    """
    return (teacher_logits.topk(k, dim=1).indices == proposal.unsqueeze(1)).any(dim=1)


@full_precision
def sample_class(logits: Tensor, *, temperature: float) -> Tensor:
    """One class of each row, drawn from softmax(logits / temperature): [B, C] -> [B].

    By torch's global generator on the device of the logits, without waiting for it: the first of C exponential clocks
    with these probabilities as rates.
    """
    waiting_time = torch.empty_like(logits).exponential_()
    return (torch.log_softmax(logits / temperature, dim=1) - waiting_time.log()).argmax(dim=1)


@full_precision
def masked_kd(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(p || q) of the images in mask [B] (bool), summed and divided by the size of the whole batch.

    What is left out has the student's own distribution as its target: a divergence of 0 with a gradient of 0.
    """
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    kl = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * torch.where(mask, kl, 0).mean()


@full_precision
def masked_cross_entropy(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the images in mask [B] (bool), summed and divided by the size of the whole batch."""
    return torch.where(mask, F.cross_entropy(logits, target, reduction="none"), 0).mean()
