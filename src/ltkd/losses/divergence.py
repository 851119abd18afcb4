"""Divergence families in place of the Kullback-Leibler divergence.

Shapes: logits [B, C]. Values are means over the batch and carry no factor T^2. With p = softmax(teacher / T) and
q = softmax(student / T), all of a family's members with alpha + beta = 1 share KL's curvature at p = q; the others
scale it by p^(alpha + beta - 1). Gradient flows to the student only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision

LARGEST_EXPONENT = 60.0  # e^60 is 1e26; float32 ends at e^88
BOTH_NEAR_ZERO = 1e-4  # below it the two-parameter form divides rounding errors by a product of two small numbers


@full_precision
def alpha_beta_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """Alpha-beta divergence, by its definition and with its continuous limits:

        D = -1/(ab) sum_c [p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)]
        b -> 0: 1/a^2 sum_c [p^a log(p^a/q^a) - p^a + q^a], a -> 0 likewise with p, a and q, b exchanged
        a + b -> 0: 1/a^2 sum_c [log(q^a/p^a) + (p/q)^a - 1];  both -> 0: 1/2 sum_c (log p - log q)^2

    (1, 0) is KL(p || q), (0, 1) KL(q || p), (1 + l, -l) the power divergence of order l. In three of the limits the
    authors' code has 1/a or 1/b in place of the squares; this is the definition. With a negative a, b or a + b the
    divergence has no bound on small probabilities: a power above e^60 counts as e^60 and passes no gradient on.
    Wang et al.: ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge Distillation via alpha-beta-
    Divergence, arXiv:2505.04560.
    """
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    if max(abs(alpha), abs(beta)) < BOTH_NEAR_ZERO:
        return (log_p - log_q).square().sum(dim=1).mean() / 2
    # D = 1/b sum_c q^(a+b) [f(a+b) - f(a)] with f(k) = ((p/q)^k - 1)/k, which is log(p/q) at k = 0: three of the limits
    # need no case of their own. The divergence is the same with p, a and q, b exchanged; divide by the larger one.
    if abs(alpha) > abs(beta):
        log_p, log_q, alpha, beta = log_q, log_p, beta, alpha
    total = alpha + beta
    log_ratio = log_p - log_q
    terms = _growth(total * log_q, log_ratio, total) - _growth(total * log_q, log_ratio, alpha)
    return terms.sum(dim=1).mean() / beta


def power_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, power: float, temperature: float, teacher_first: bool = True
) -> Tensor:
    """Cressie-Read power divergence of order l: D = 1/(l (l + 1)) (sum_c p (p/q)^l - 1).

    l -> 0 is KL(p || q), l -> -1 KL(q || p), l = -1/2 four times the squared Hellinger distance (symmetric). Without
    `teacher_first` p and q change places, which is the order -(l + 1). Limits and bound as `alpha_beta_divergence`,
    whose member (1 + l, -l) it is. Tybl, Neumann: REDistill, arXiv:2602.04677, with l = 2/3.
    """
    alpha, beta = (1 + power, -power) if teacher_first else (-power, 1 + power)
    return alpha_beta_divergence(student_logits, teacher_logits, alpha=alpha, beta=beta, temperature=temperature)


def _growth(start: Tensor, ratio: Tensor, power: float) -> Tensor:
    """e^start * (e^(power * ratio) - 1) / power, and its limit e^start * ratio for power 0.

    Without cancellation where the ratio is small, and without overflow between a large and a small factor.
    """
    start = start.clamp(max=LARGEST_EXPONENT)
    if power == 0:
        return start.exp() * ratio
    exponent = power * ratio
    rises = exponent > 0  # a clamp in place of the masks would pass no gradient at 0, where p = q
    falling = start.exp() * torch.expm1(exponent.masked_fill(rises, 0))
    rising = -(start + exponent).clamp(max=LARGEST_EXPONENT).exp() * torch.expm1(-exponent.masked_fill(~rises, 0))
    return torch.where(rises, rising, falling) / power
