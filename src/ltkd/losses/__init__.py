"""The mathematics: tensors in, scalars out, no state. Every function computes in float32 or better."""

<<<<<<< HEAD
from ltkd.losses.balanced import balanced_softmax, cross_entropy, effective_number_weights, logit_adjusted
from ltkd.losses.bayesian import bayesian_teacher
from ltkd.losses.comparative import comparative_kd, comparative_labels
from ltkd.losses.extrapolation import extrapolated_target, forward_kl_to_target, reverse_kl_to_target
from ltkd.losses.gradient import input_gradient_alignment
from ltkd.losses.logit import dkd, dkd_terms, kd
from ltkd.losses.ltkd import ClassGroups, group_log_mass, group_mass, ltkd_terms
from ltkd.losses.mixup import logit_mse, mixup_cross_entropy
from ltkd.losses.speculative import masked_cross_entropy, masked_kd, sample_class, speculative_acceptance
=======
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
>>>>>>> main

__all__ = [
    "ClassGroups",
    "balanced_softmax",
<<<<<<< HEAD
    "bayesian_teacher",
    "comparative_kd",
    "comparative_labels",
=======
    "class_balanced_cross_entropy",
    "class_balanced_focal",
>>>>>>> main
    "cross_entropy",
    "dkd",
    "dkd_terms",
    "effective_number_weights",
<<<<<<< HEAD
    "extrapolated_target",
    "forward_kl_to_target",
=======
    "focal",
>>>>>>> main
    "group_log_mass",
    "group_mass",
    "input_gradient_alignment",
    "kd",
    "ldam",
    "learnable_weight_scaling",
    "logit_adjusted",
    "logit_mse",
    "ltkd_terms",
<<<<<<< HEAD
    "masked_cross_entropy",
    "masked_kd",
    "mixup_cross_entropy",
    "reverse_kl_to_target",
    "sample_class",
    "speculative_acceptance",
=======
    "posthoc_logit_adjustment",
    "tau_normalise",
    "tau_normalised_logits",
    "weighted_cross_entropy",
>>>>>>> main
]
