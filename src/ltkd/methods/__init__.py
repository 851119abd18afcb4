"""The distillation methods and the task losses, by name."""

from collections.abc import Mapping
from typing import Any

from ltkd.methods import (  # noqa: F401  importing a file registers its methods
    attention,
    balanced,
    contrastive,
    correlation,
    cross_domain,
    curriculum_temperature,
    divergence,
    feature,
    generalized_kl,
    hard_label,
    inputs,
    logit,
    long_tail,
    ltkd,
    mlkd,
    prior_correction,
    relation,
    review,
    sim,
    standardized,
    targets,
    trust,
    two_heads,
)
from ltkd.methods.base import Method, MethodContext, Needs, Networks, list_methods, method_class, register
from ltkd.methods.task import TaskLoss, build_task_loss, list_task_losses, register_task_loss, task_loss_class

__all__ = [
    "Method",
    "MethodContext",
    "Needs",
    "Networks",
    "TaskLoss",
    "build_method",
    "build_task_loss",
    "list_methods",
    "list_task_losses",
    "method_class",
    "register",
    "register_task_loss",
    "task_loss_class",
]


def build_method(name: str, arguments: Mapping[str, Any], context: MethodContext, task_loss: TaskLoss) -> Method:
    """The method of that name with its settings `arguments` (the YAML's keys without `name`). UserError if unknown."""
    return method_class(name)(context, task_loss, **arguments)
