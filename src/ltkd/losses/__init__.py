"""The mathematics: tensors in, scalars out, no state. Every function computes in float32 or better."""

from ltkd.losses.balanced import balanced_softmax, cross_entropy, effective_number_weights, logit_adjusted
from ltkd.losses.correlation import (
    correlation_matching,
    dist,
    normalized_entropy,
    overlap_weighted_kd,
    pearson,
    ranking_loss,
    soft_rank,
    soft_spearman,
)
from ltkd.losses.divergence import alpha_beta_divergence, power_divergence
from ltkd.losses.logit import (
    balanced_kd,
    dive,
    dive_target,
    dkd,
    dkd_terms,
    kd,
    kd_per_image,
    nkd,
    soft_label_weights,
    standardize,
    weighted_soft_labels,
)
from ltkd.losses.ltkd import ClassGroups, group_log_mass, group_mass, ltkd_terms
from ltkd.losses.mlkd import mlkd_batch, mlkd_class, mlkd_instance

__all__ = [
    "ClassGroups",
    "alpha_beta_divergence",
    "balanced_kd",
    "balanced_softmax",
    "correlation_matching",
    "cross_entropy",
    "dist",
    "dive",
    "dive_target",
    "dkd",
    "dkd_terms",
    "effective_number_weights",
    "group_log_mass",
    "group_mass",
    "kd",
    "kd_per_image",
    "logit_adjusted",
    "ltkd_terms",
    "mlkd_batch",
    "mlkd_class",
    "mlkd_instance",
    "nkd",
    "normalized_entropy",
    "overlap_weighted_kd",
    "pearson",
    "power_divergence",
    "ranking_loss",
    "soft_label_weights",
    "soft_rank",
    "soft_spearman",
    "standardize",
    "weighted_soft_labels",
]
