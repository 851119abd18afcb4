"""The mathematics: tensors in, scalars out, no state. Every function computes in float32 or better."""

from ltkd.losses.balanced import (
    balanced_softmax,
    class_balanced_cross_entropy,
    class_balanced_focal,
    cross_entropy,
    effective_number_weights,
    focal,
    ldam,
    logit_adjusted,
    weighted_cross_entropy,
)
from ltkd.losses.logit import dkd, dkd_terms, kd
from ltkd.losses.ltkd import ClassGroups, group_log_mass, group_mass, ltkd_terms
from ltkd.losses.post_hoc import (
    learnable_weight_scaling,
    posthoc_logit_adjustment,
    tau_normalise,
    tau_normalised_logits,
)

__all__ = [
    "ClassGroups",
    "balanced_softmax",
    "class_balanced_cross_entropy",
    "class_balanced_focal",
    "cross_entropy",
    "dkd",
    "dkd_terms",
    "effective_number_weights",
    "focal",
    "group_log_mass",
    "group_mass",
    "kd",
    "ldam",
    "learnable_weight_scaling",
    "logit_adjusted",
    "ltkd_terms",
    "posthoc_logit_adjustment",
    "tau_normalise",
    "tau_normalised_logits",
    "weighted_cross_entropy",
]
