"""The mathematics: tensors in, scalars out, no state. Every function computes in float32 or better."""

from ltkd.losses.bayesian import bayesian_teacher
from ltkd.losses.class_contrast import balanced_contrastive, queue_contrast
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
from ltkd.losses.cosine import class_balanced_distillation, cosine_distance, cosine_kd, cosine_logits
from ltkd.losses.cross_domain import xerm, xerm_weights
from ltkd.losses.cutout import cutout_box
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
from ltkd.losses.generalized_kl import class_mean_probabilities, class_sums, gkl, ikl
from ltkd.losses.gradient import input_gradient_alignment
from ltkd.losses.hard_label import deferred_hard_distillation
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
from ltkd.losses.lookahead import hard_soft_terms, lookahead_gradient, lookahead_loss, weighted_hard_soft
from ltkd.losses.ltkd import ClassGroups, group_log_mass, group_mass, ltkd_terms
from ltkd.losses.mixup import logit_mse, mixup_cross_entropy
from ltkd.losses.mlkd import mlkd_batch, mlkd_class, mlkd_instance
from ltkd.losses.post_hoc import (
    learnable_weight_scaling,
    posthoc_logit_adjustment,
    tau_normalise,
    tau_normalised_logits,
)
from ltkd.losses.prior_correction import balanced_posterior_kd, prior_corrected_kd
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
from ltkd.losses.sharpness import sam
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
from ltkd.losses.trust import accuracy_weights, trust_gated_kd
from ltkd.losses.two_heads import two_head_distillation

__all__ = [
    "ClassGroups",
    "abf_fuse",
    "accuracy_weights",
    "alpha_beta_divergence",
    "attention_transfer",
    "balanced_contrastive",
    "balanced_kd",
    "balanced_posterior_kd",
    "balanced_softmax",
    "bayesian_teacher",
    "class_attention",
    "class_balanced_cross_entropy",
    "class_balanced_distillation",
    "class_balanced_focal",
    "class_mean_probabilities",
    "class_sums",
    "comparative_kd",
    "comparative_labels",
    "correlation_congruence",
    "correlation_congruence_kernel",
    "correlation_matching",
    "cosine_distance",
    "cosine_kd",
    "cosine_logits",
    "crd_nce",
    "crd_scores",
    "cross_entropy",
    "cutout_box",
    "deferred_hard_distillation",
    "dist",
    "dive",
    "dive_target",
    "dkd",
    "dkd_terms",
    "effective_number_weights",
    "extrapolated_target",
    "focal",
    "forward_kl_to_target",
    "gkl",
    "group_log_mass",
    "group_mass",
    "hard_soft_terms",
    "hcl",
    "ikl",
    "input_gradient_alignment",
    "kd",
    "kd_per_image",
    "ldam",
    "learnable_weight_scaling",
    "logit_adjusted",
    "logit_mse",
    "lookahead_gradient",
    "lookahead_loss",
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
    "prior_corrected_kd",
    "queue_contrast",
    "ranking_loss",
    "relational",
    "relational_terms",
    "reverse_kl_to_target",
    "sam",
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
    "trust_gated_kd",
    "two_head_distillation",
    "unit_vectors",
    "variational_information",
    "vid_initial_log_scale",
    "weighted_cross_entropy",
    "weighted_hard_soft",
    "weighted_soft_labels",
    "xerm",
    "xerm_weights",
]
