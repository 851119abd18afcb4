"""The mathematics: tensors in, scalars out, no state. Every function computes in float32 or better."""

from ltkd.losses.bayesian import bayesian_teacher
from ltkd.losses.comparative import comparative_kd, comparative_labels
from ltkd.losses.contrastive import crd_nce, crd_scores
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
from ltkd.losses.extrapolation import extrapolated_target, forward_kl_to_target, reverse_kl_to_target
from ltkd.losses.feature import (
    attention_transfer,
    class_attention,
    mean_squared_error,
    nst,
    ofd_margin,
    ofd_partial_l2,
    to_common_size,
    unit_vectors,
    variational_information,
    vid_initial_log_scale,
)
from ltkd.losses.gradient import input_gradient_alignment
from ltkd.losses.logit import (
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
from ltkd.losses.mixup import logit_mse, mixup_cross_entropy
from ltkd.losses.mlkd import mlkd_batch, mlkd_class, mlkd_instance
from ltkd.losses.post_hoc import (
    learnable_weight_scaling,
    posthoc_logit_adjustment,
    tau_normalise,
    tau_normalised_logits,
)
from ltkd.losses.relation import (
    correlation_congruence,
    correlation_congruence_kernel,
    pkt,
    relational,
    relational_terms,
    similarity_preserving,
)
from ltkd.losses.review import abf_fuse, hcl
from ltkd.losses.reweighted import balanced_kd, dive, dive_target
from ltkd.losses.speculative import masked_cross_entropy, masked_kd, sample_class, speculative_acceptance
from ltkd.losses.task import (
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

__all__ = [
    "ClassGroups",
    "abf_fuse",
    "alpha_beta_divergence",
    "attention_transfer",
    "balanced_kd",
    "balanced_softmax",
    "bayesian_teacher",
    "class_attention",
    "class_balanced_cross_entropy",
    "class_balanced_focal",
    "comparative_kd",
    "comparative_labels",
    "correlation_congruence",
    "correlation_congruence_kernel",
    "correlation_matching",
    "crd_nce",
    "crd_scores",
    "cross_entropy",
    "dist",
    "dive",
    "dive_target",
    "dkd",
    "dkd_terms",
    "effective_number_weights",
    "extrapolated_target",
    "focal",
    "forward_kl_to_target",
    "group_log_mass",
    "group_mass",
    "hcl",
    "input_gradient_alignment",
    "kd",
    "kd_per_image",
    "ldam",
    "learnable_weight_scaling",
    "logit_adjusted",
    "logit_mse",
    "ltkd_terms",
    "masked_cross_entropy",
    "masked_kd",
    "mean_squared_error",
    "mixup_cross_entropy",
    "mlkd_batch",
    "mlkd_class",
    "mlkd_instance",
    "nkd",
    "normalized_entropy",
    "nst",
    "ofd_margin",
    "ofd_partial_l2",
    "overlap_weighted_kd",
    "pearson",
    "pkt",
    "posthoc_logit_adjustment",
    "power_divergence",
    "ranking_loss",
    "relational",
    "relational_terms",
    "reverse_kl_to_target",
    "sample_class",
    "similarity_preserving",
    "soft_label_weights",
    "soft_rank",
    "soft_spearman",
    "speculative_acceptance",
    "standardize",
    "tau_normalise",
    "tau_normalised_logits",
    "to_common_size",
    "unit_vectors",
    "variational_information",
    "vid_initial_log_scale",
    "weighted_cross_entropy",
    "weighted_soft_labels",
]
