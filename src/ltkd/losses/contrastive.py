"""Contrastive representation distillation: scores against a memory, and the noise-contrastive loss.

Tian, Krishnan, Isola: Contrastive Representation Distillation, arXiv:1910.10699.
"""

from torch import Tensor

from ltkd.losses.feature import unit_vectors
from ltkd.losses.precision import full_precision


@full_precision
def crd_scores(anchor: Tensor, memory: Tensor, *, temperature: float) -> Tensor:
    """exp(v . m / temperature), not yet divided by its constant Z: [B, N] for anchors [B, D], memory [N, D].

    v is the anchor scaled to unit norm; the memory's rows have it already. Gradient flows to the anchor.
    """
    return (unit_vectors(anchor) @ memory.T / temperature).exp()


@full_precision
def crd_nce(scores: Tensor, counts: Tensor | None = None, *, num_data: int) -> Tensor:
    """Noise-contrastive loss of one side: -mean_b [log P/(P + m Pn) + sum over negatives of log m Pn/(P + m Pn)].

    scores [B, 1 + M]: first the positive's, then those of negatives; Pn = 1 / num_data; m: the number of negatives.
    counts [B, M]: how often each negative was drawn, by default once each; m is then their sum. 1e-7 is added to each
    denominator, as in the authors' code.
    """
    positive, negative = scores[:, 0], scores[:, 1:]
    m = negative.shape[1] if counts is None else counts.sum(dim=1, keepdim=True)
    noise = m / num_data
    log_noise_share = (noise / (negative + noise + 1e-7)).log()
    if counts is not None:
        log_noise_share, noise = counts * log_noise_share, noise.squeeze(1)
    log_data_share = (positive / (positive + noise + 1e-7)).log()
    return -(log_data_share + log_noise_share.sum(dim=1)).mean()
