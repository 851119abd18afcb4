"""Corrections of a network's logits for the class counts after training, from its description alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from ltkd.deploy.description import Description
from ltkd.errors import UserError
from ltkd.losses import posthoc_logit_adjustment, tau_normalised_logits

NAMES = {"logit_adjusted": "logit adjustment", "tau_normalized": "tau-normalisation"}

Correction = Callable[[Tensor, float], Tensor]  # (logits [N, C], tau) -> logits [N, C]


def build_correction(about: Description, kind: str) -> Correction:
    """The correction of that kind. UserError where a class had no training image, or the classifier is not linear."""
    if kind == "logit_adjusted":
        counts = torch.tensor(about.class_counts)
        if not counts.all():
            name = about.class_names[int(counts.argmin())]
            raise UserError(f"correction: needs a training image of every class, and {name} had none; leave it out")
        return lambda logits, tau: posthoc_logit_adjustment(logits, counts, tau=tau)
    if about.tau_normalisation is None:
        raise UserError(
            f"correction: {kind} needs the weights of a linear classifier, which {about.architecture['name']} has not; "
            "use logit_adjusted"
        )
    norms, biases = (torch.tensor(about.tau_normalisation[key]) for key in ("norms", "biases"))
    return lambda logits, tau: tau_normalised_logits(logits, norms[:, None], biases, tau=tau)


def default_tau(about: Description, kind: str) -> tuple[float, str]:
    """(tau, what chose it: validation, setting or default) of the network's run."""
    if kind == "logit_adjusted":
        return about.tau, about.tau_chosen_by
    return about.tau_normalisation["tau"], about.tau_normalisation["chosen_by"]
