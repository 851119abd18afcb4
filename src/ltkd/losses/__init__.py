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
from ltkd.losses.bayesian import bayesian_teacher
from ltkd.losses.comparative import comparative_kd, comparative_labels
from ltkd.losses.extrapolation import extrapolated_target, forward_kl_to_target, reverse_kl_to_target
from ltkd.losses.gradient import input_gradient_alignment
from ltkd.losses.logit import dkd, dkd_terms, kd
from ltkd.losses.ltkd import ClassGroups, group_log_mass, group_mass, ltkd_terms
from ltkd.losses.mixup import logit_mse, mixup_cross_entropy
from ltkd.losses.post_hoc import (
    learnable_weight_scaling,
    posthoc_logit_adjustment,
    tau_normalise,
    tau_normalised_logits,
)
from ltkd.losses.speculative import masked_cross_entropy, masked_kd, sample_class, speculative_acceptance

__all__ = [
    "ClassGroups",
    "balanced_softmax",
    "bayesian_teacher",
    "class_balanced_cross_entropy",
    "class_balanced_focal",
    "comparative_kd",
    "comparative_labels",
    "cross_entropy",
    "dkd",
    "dkd_terms",
    "effective_number_weights",
    "extrapolated_target",
    "focal",
    "forward_kl_to_target",
    "group_log_mass",
    "group_mass",
    "input_gradient_alignment",
    "kd",
    "ldam",
    "learnable_weight_scaling",
    "logit_adjusted",
    "logit_mse",
    "ltkd_terms",
    "masked_cross_entropy",
    "masked_kd",
    "mixup_cross_entropy",
    "posthoc_logit_adjustment",
    "reverse_kl_to_target",
    "sample_class",
    "speculative_acceptance",
    "tau_normalise",
    "tau_normalised_logits",
    "weighted_cross_entropy",
]
