"""Says of a run whether its training evened the classes out: correcting its logits afterwards does so a second time.

Knows no torch, so that it starts at once, and reads the identity alone, which the oldest results have too.
"""

from collections.abc import Mapping
from typing import Any

from ltkd.choices import name_and_settings

TASK_LOSSES = ("balanced_softmax", "class_balanced", "class_balanced_focal", "logit_adjusted")
DEFERRED = {"ldam": 0.8, "focal": None}  # those that weigh classes from a share of the epochs on, with its default
# those whose own term makes up for the class counts
METHODS = ("balanced_posterior", "bkd", "cckd", "deit_lt", "ltkd", "xerm")
WHATEVER_SAMPLING = ("balanced_posterior",)  # those that make up for the frequencies of the images as they are drawn


def evened_out_by(identity: Mapping[str, Any]) -> str | None:
    """The setting that evened the classes out, as "retraining=crt"; None for a training that left the imbalance."""
    name, settings = name_and_settings(identity.get("retraining") or {})
    if name is not None and settings.get("sampling") != "instance":
        return f"retraining={name}"
    method = identity.get("method") or {}
    name, _ = name_and_settings(identity.get("recipe", {}).get("sampling", "instance"))
    if name != "instance" and method.get("name") not in WHATEVER_SAMPLING:
        return f"sampling={name}"
    name, settings = name_and_settings(identity.get("task_loss", "ce"))
    deferred = settings.get("deferred", DEFERRED.get(name))
    if settings.get("tau") != 0 and (name in TASK_LOSSES or deferred is not None):
        return f"task_loss={name}"
    # of LTKD's terms it is the cross term that does, where it is rebalanced
    without = method.get("rebalancing") == "none" or method.get("alpha") == 0
    if method.get("name") in METHODS and not without:
        return f"method={method['name']}"
    return None
