"""LTKD: knowledge distillation on long-tailed image data.

`from ltkd import kd, make_split, build_model, open_network`: the losses, splits, networks, methods and finished runs
for use in other programs; docs/library.md has examples. They are imported when first asked for, since torch is slow to.
"""

import importlib
import importlib.util
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ltkd.data": ("Batch", "LongTailSplit", "class_counts", "make_groups", "make_split"),
    "ltkd.models": ("ModelOutput", "build_model", "list_models", "load_weights"),
    "ltkd.methods": ("MethodContext", "build_method", "list_methods", "method_class"),
    "ltkd.task_losses": ("build_task_loss", "list_task_losses"),
    "ltkd.config.compose": ("compose_values",),
    "ltkd.config.load": ("load_config",),
    "ltkd.runs.run": ("run_experiment",),
    "ltkd.runs.load": ("load_run",),
    "ltkd.deploy.open": ("open_network",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_LOSSES = "ltkd.losses"  # all that it exports


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    # a module of the package is not looked for among the losses: not all of them need torch
    if not name.startswith("_") and importlib.util.find_spec(f"ltkd.{name}") is None:
        losses = importlib.import_module(_LOSSES)
        if name in losses.__all__:
            return getattr(losses, name)
    raise AttributeError(f"module 'ltkd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF, *importlib.import_module(_LOSSES).__all__])
