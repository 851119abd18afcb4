"""Distillation from a teacher of which there are several: samples of a posterior, members of an ensemble."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


@full_precision
def bayesian_teacher(
    student_logits: Tensor, teacher_logit_samples: Tensor, *, teacher_temperature: float, student_temperature: float
) -> Tensor:
    """T_t * T_s * KL(pbar || softmax(z_s / T_s)), pbar = mean over the samples of softmax(z_t / T_t).

    Morad, Shlezinger, Eldar: SGD-Based Knowledge Distillation with Bayesian Teachers, arXiv:2601.01484 (ICLR 2026).
    student_logits [B, C], teacher_logit_samples [S, B, C]; mean over the batch; gradient to the student only.
    Probabilities are averaged, never logits: their mean is the posterior's prediction, the logits' mean is not.
    """
    log_p = F.log_softmax(teacher_logit_samples.detach() / teacher_temperature, dim=2)
    log_mean = torch.logsumexp(log_p, dim=0) - math.log(len(log_p))
    log_q = F.log_softmax(student_logits / student_temperature, dim=1)
    kl = F.kl_div(log_q, log_mean, reduction="batchmean", log_target=True)
    return teacher_temperature * student_temperature * kl
