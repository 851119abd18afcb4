"""Distillation of the teacher's class-conditional likelihood: its posterior divided by a prior."""

from torch import Tensor

from ltkd.losses.logit import kd
from ltkd.losses.precision import full_precision


@full_precision
def prior_corrected_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    teacher_prior: Tensor | None = None,
    class_counts: Tensor | None = None,
    *,
    temperature: float,
    student_prior: float = 0.0,
) -> Tensor:
    """Prior-corrected KD: T^2 * KL(softmax((t - log m) / T) || softmax((s + student_prior * log pi) / T)).

    student_logits, teacher_logits: [B, C]. teacher_prior: m [C], positive, of any sum; without it m = pi. class_counts
    [C] give pi = n / sum n; they are needed without teacher_prior and with a student_prior. With a uniform m and
    student_prior 0 it is `kd`. Gradient flows to the student only.

    With m = pi it is the post-hoc logit adjustment of the teacher (arXiv:2007.07314). Distilling p(x|y) in place of
    p(y|x): Class-Conditional Knowledge Distillation, ICML 2024, of which the abstract alone was at hand.
    """
    dtype = student_logits.dtype
    log_pi = None if class_counts is None else (class_counts.to(dtype) / class_counts.sum()).log()
    log_m = log_pi if teacher_prior is None else teacher_prior.to(dtype).log()
    if student_prior:
        student_logits = student_logits + student_prior * log_pi
    return kd(student_logits, teacher_logits - log_m, temperature=temperature)
