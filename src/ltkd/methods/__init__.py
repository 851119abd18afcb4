"""The distillation methods, by name."""

from collections.abc import Mapping
from typing import Any

from ltkd.methods import (  # noqa: F401  importing a file registers its methods
    attention,
    bayesian,
    comparative,
    contrastive,
    correlation,
    cross_domain,
    curriculum_temperature,
    divergence,
    extrapolation,
    feature,
    generalized_kl,
    gradient,
    hard_label,
    logit,
    ltkd,
    mixup,
    mlkd,
    online,
    prior_correction,
    relation,
    review,
    reweighted,
    simkd,
    speculative,
    standardized,
    trust,
    two_heads,
)
from ltkd.methods.base import Method, MethodContext, Needs, Networks, list_methods, method_class, register
from ltkd.task_losses import TaskLoss

__all__ = [
    "Method",
    "MethodContext",
    "Needs",
    "Networks",
    "build_method",
    "list_methods",
    "method_class",
    "register",
]


def build_method(name: str, arguments: Mapping[str, Any], context: MethodContext, task_loss: TaskLoss) -> Method:
    """The method of that name with its settings `arguments` (the YAML's keys without `name`). UserError if unknown."""
    return method_class(name)(context, task_loss, **arguments)
