"""The mathematics: tensors in, scalars out, no state. Every function computes in float32 or better."""

from ltkd.losses.balanced import balanced_softmax, cross_entropy, effective_number_weights, logit_adjusted
from ltkd.losses.logit import dkd, dkd_terms, kd
from ltkd.losses.ltkd import ClassGroups, group_log_mass, group_mass, ltkd_terms

__all__ = [
    "ClassGroups",
    "balanced_softmax",
    "cross_entropy",
    "dkd",
    "dkd_terms",
    "effective_number_weights",
    "group_log_mass",
    "group_mass",
    "kd",
    "logit_adjusted",
    "ltkd_terms",
]
