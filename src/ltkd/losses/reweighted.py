"""Distillation losses whose targets are re-weighted for long-tailed data.

Shapes: logits [B, C], class_counts [C] (training images per class). Values are means over the batch and carry the
factor T^2 that keeps the size of the gradient independent of the temperature. Gradient flows to the student only.
"""

import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.logit import kd
from ltkd.losses.precision import full_precision
from ltkd.losses.task import effective_number_weights


@full_precision
def balanced_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    class_counts: Tensor,
    *,
    temperature: float,
    effective_number_beta: float | Tensor,
) -> Tensor:
    """Balanced KD: T^2 * KL(t || q) with the teacher's probabilities p times class weights, t_c = p_c w_c / sum p w.

    w: `effective_number_weights`; beta = 0 is `kd`. t = softmax(teacher / T + log w), a logit-adjusted teacher.
    Zhang, Chen, Hu, Peng: Balanced Knowledge Distillation for Long-tailed Learning, arXiv:2104.10510.
    """
    log_weights = effective_number_weights(class_counts, beta=effective_number_beta).log().to(teacher_logits.dtype)
    return kd(student_logits, teacher_logits + temperature * log_weights, temperature=temperature)


@full_precision
def dive(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, power: float) -> Tensor:
    """DiVE: T^2 * KL(t || softmax(student / T)) with virtual examples t = `dive_target`.

    He, Wu, Wei: Distilling Virtual Examples for Long-tailed Recognition, arXiv:2103.15042.
    """
    return kd(student_logits, power * teacher_logits, temperature=temperature)


@full_precision
def dive_target(teacher_logits: Tensor, *, temperature: float, power: float) -> Tensor:
    """The power-normalised teacher, p^power renormalised with p = softmax(teacher / T): [B, C].

    It equals softmax(power * teacher / T): a teacher temperature of T / power beside a student temperature of T.
    """
    return F.softmax(power * teacher_logits.detach() / temperature, dim=1)
