"""Distillation of the teacher's class-conditional likelihood: its posterior divided by a prior."""

from torch import Tensor

from ltkd.losses.bayesian import bayesian_teacher
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


@full_precision
def balanced_posterior_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    class_counts: Tensor,
    *,
    temperature: float,
    drawn: Tensor | None = None,
) -> Tensor:
    """KD to the mean of K teachers of the student's logits plus the log prior, s being the balanced posterior's:

        T^2 * KL(1/K sum_k softmax(t_k / T) || softmax((s + log pi) / T)), pi = n / sum n

    student_logits: [B, C]; teacher_logits: [K, B, C]; class_counts: n [C], none 0. Where s + log pi predicts under the
    training set's class frequencies, s does under equal ones: KD with the correction at tau 1 (arXiv:2007.07314) inside
    of the network. Probabilities are averaged, as in a deep ensemble (arXiv:1612.01474). Gradient flows to the student
    only.

    drawn: r [C], positive, of any sum, the frequencies of the classes in the student's batches where a sampler makes
    them differ from pi. Both sides are then the posteriors under r: t_k + log r - log pi and s + log r.
    """
    dtype = student_logits.dtype
    log_prior = (class_counts.to(dtype) / class_counts.sum()).log()
    if drawn is not None:
        log_drawn = (drawn / drawn.sum()).to(dtype).log()
        teacher_logits, log_prior = teacher_logits + (log_drawn - log_prior), log_drawn
    return bayesian_teacher(
        student_logits + log_prior, teacher_logits, teacher_temperature=temperature, student_temperature=temperature
    )
