"""Says of a run whether its training evened the classes out: correcting its logits afterwards does so a second time.

Knows no torch, so that it starts at once, and reads the identity alone, which the oldest results have too.
"""

from collections.abc import Mapping
from typing import Any

TASK_LOSSES = ("balanced_softmax", "class_balanced", "class_balanced_focal", "logit_adjusted")
DEFERRED = {"ldam": 0.8, "focal": None}  # those that weigh classes from a share of the epochs on, with its default
METHODS = ("bkd", "cckd", "deit_lt", "ltkd", "tcl", "xerm")  # whose own term makes up for the class counts


def evened_out_by(identity: Mapping[str, Any]) -> str | None:
    """The setting that evened the classes out, as "retraining=crt"; None for a training that left the imbalance."""
    retraining = identity.get("retraining")
    if retraining is not None and _settings(retraining).get("sampling") != "instance":
        return f"retraining={_name(retraining)}"
    sampling = identity.get("recipe", {}).get("sampling", "instance")
    if _name(sampling) != "instance":
        return f"sampling={_name(sampling)}"
    loss = identity.get("task_loss", "ce")
    settings = _settings(loss)
    if settings.get("tau") != 0 and (
        _name(loss) in TASK_LOSSES or settings.get("deferred", DEFERRED.get(_name(loss))) is not None
    ):
        return f"task_loss={_name(loss)}"
    method = identity.get("method") or {}
    # of LTKD's terms it is the cross term that does, where it is rebalanced
    without = method.get("rebalancing") == "none" or method.get("alpha") == 0
    if method.get("name") in METHODS and not without:
        return f"method={method['name']}"
    return None


def _name(choice: str | Mapping[str, Any]) -> str:
    return choice if isinstance(choice, str) else choice["name"]


def _settings(choice: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {} if isinstance(choice, str) else choice
