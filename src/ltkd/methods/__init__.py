"""The distillation methods, by name."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from ltkd.methods.base import FIDELITY, Method, MethodContext, Needs, Networks, list_methods, method_class, register
from ltkd.task_losses import TaskLoss

__all__ = [
    "FIDELITY",
    "Method",
    "MethodContext",
    "Needs",
    "Networks",
    "build_method",
    "list_methods",
    "method_class",
    "register",
]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")  # importing a file of this folder registers its methods


def build_method(name: str, arguments: Mapping[str, Any], context: MethodContext, task_loss: TaskLoss) -> Method:
    """The method of that name with its settings `arguments` (the YAML's keys without `name`). UserError if unknown."""
    return method_class(name)(context, task_loss, **arguments)
