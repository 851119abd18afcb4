"""Contrastive losses that count every class alike: against a queue of keys, and with class centres.

Vectors have unit length. Both losses compute exponentials of scores / temperature in float32 or better.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


@full_precision
def queue_contrast(
    query: Tensor,
    keys: Tensor,
    target: Tensor,
    key_target: Tensor,
    class_counts: Tensor,
    keep: Tensor | None = None,
    log_temperature: Tensor | None = None,
    *,
    temperature: float | Tensor | None = None,
) -> Tensor:
    """GML's contrast: CE(S + log pi, y), S_bc = log mean over the keys k of class c of exp(q_b . k / temperature).

    query [B, D], keys [K, D], target [B], key_target [K], class_counts [C]; keep [B, K]: 0 leaves a pair out. With
    log_temperature, query and keys are constants and the temperature exp(log_temperature) learns alone; else give
    `temperature`. A class without a key is no choice for that image; an image without a key of its own class has no
    part in the mean. Suh, Seo: arXiv:2305.01160.
    """
    if log_temperature is not None:
        query, keys, temperature = query.detach(), keys.detach(), log_temperature.exp()
    scores = query @ keys.T / temperature
    kept = torch.ones_like(scores) if keep is None else (keep != 0).to(scores.dtype)
    scores = scores.masked_fill(kept == 0, -torch.inf)
    # of each class its own largest score: of one for all, the sums of far classes would underflow
    classes = key_target.expand(len(query), -1)
    largest = torch.full((len(query), len(class_counts)), -torch.inf, dtype=scores.dtype, device=scores.device)
    largest = largest.scatter_reduce(1, classes, scores.detach(), "amax")
    largest = largest.masked_fill(largest.isinf(), 0)  # no key
    shifted = (scores - largest.gather(1, classes)).exp()
    member = (key_target.unsqueeze(1) == torch.arange(len(class_counts), device=keys.device)).to(scores.dtype)
    sums, numbers = shifted @ member, kept @ member
    absent = numbers == 0
    similarity = largest + (sums.masked_fill(absent, 1).log() - numbers.masked_fill(absent, 1).log())
    prior = class_counts.to(scores.dtype).log()
    log_q = F.log_softmax((similarity + prior).masked_fill(absent, torch.finfo(scores.dtype).min), dim=1)
    present = ~absent.gather(1, target.unsqueeze(1)).squeeze(1)
    losses = F.nll_loss(log_q, target, reduction="none")
    return torch.where(present, losses, 0).sum() / present.sum().clamp(min=1)


@full_precision
def balanced_contrastive(
    centers: Tensor, view1: Tensor, view2: Tensor, target: Tensor, *, temperature: float
) -> Tensor:
    """Balanced contrastive loss of two views [B, D] each and class centres [C, D], target [B].

        z = [view1; view2; centers]; mean over the 2B anchors a of
        -mean over positives p of [a.p / T - log sum_{j != a} exp(a.j / T) / N_aj]

    Positives: the other vectors of a's class, its centre included. N_aj: the members of j's class in z, without the
    anchor itself where j is a positive of a. Every class has the same share in the sum.
    Zhu et al.: Balanced Contrastive Learning for Long-Tailed Visual Recognition, arXiv:2207.09052 (CVPR 2022).
    """
    z = torch.cat((view1, view2, centers))
    labels = torch.cat((target, target, torch.arange(len(centers), device=target.device)))
    anchors = 2 * len(target)
    scores = z[:anchors] @ z.T / temperature
    is_anchor = torch.arange(len(z), device=z.device) == torch.arange(anchors, device=z.device).unsqueeze(1)
    same_class = labels[:anchors].unsqueeze(1) == labels
    positive = (same_class & ~is_anchor).to(z.dtype)
    members = (labels.unsqueeze(1) == labels).sum(dim=1).to(z.dtype) - positive
    log_denominator = (scores - members.log()).masked_fill(is_anchor, -torch.inf).logsumexp(dim=1)
    towards = (positive * scores).sum(dim=1) / positive.sum(dim=1)
    return (log_denominator - towards).mean()
