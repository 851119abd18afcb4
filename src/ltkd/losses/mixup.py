"""Losses on mixed images lam * x + (1 - lam) * x_partner.

Shapes: logits [B, C] of the mixed images, target and partner_target [B] (int64 labels of the images and of their
partners), lam [] (one for the batch) or [B].
"""

import torch.nn.functional as F
from torch import Tensor

from ltkd.losses.precision import full_precision


@full_precision
def mixup_cross_entropy(logits: Tensor, target: Tensor, partner_target: Tensor, lam: Tensor) -> Tensor:
    """Cross-entropy with the mixed label: mean_b lam * CE(z, y) + (1 - lam) * CE(z, y_partner).

    Zhang et al.: mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412.
    """
    own_loss = F.cross_entropy(logits, target, reduction="none")
    partner_loss = F.cross_entropy(logits, partner_target, reduction="none")
    return (lam * own_loss + (1 - lam) * partner_loss).mean()


@full_precision
def logit_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Squared distance of the logits, mean over images and classes; gradient to the student only.

    It sees the common offset of an image's logits and their scale, which no divergence of softmaxes does.
    """
    return F.mse_loss(student_logits, teacher_logits.detach())
