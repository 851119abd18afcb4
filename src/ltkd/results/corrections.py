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
OF_THE_TEACHER = ("simkd", "ssd")  # those whose deployed classifier learns from the teacher alone, or is the teacher's
# those whose student learns the teacher's features or their relations: its classifier learns from the labels alone
OF_FEATURES = ("at", "catkd", "cbd", "cc", "fitnet", "nst", "ofd", "pkt", "reviewkd", "rkd", "sp", "vid")


def evened_out_by(identity: Mapping[str, Any]) -> str | None:
    """The setting that evened the classes out, as "retraining=crt"; None for a training that left the imbalance.

    Where sampling and task loss both did, the logits are corrected twice already, and both are named. A student that
    imitates the logits of a teacher that was evened out is so by its teacher, as far as it follows it.
    """
    name, settings = name_and_settings(identity.get("retraining") or {})
    if name is not None:  # this second stage makes the classifier that is deployed
        return None if settings.get("sampling") == "instance" else f"retraining={name}"
    method = identity.get("method") or {}
    if method.get("name") in OF_THE_TEACHER:
        return _teacher(identity)
    if method.get("name") in WHATEVER_SAMPLING:
        return _method(method)
    task_loss = _task_loss(identity) if method.get("task_weight") != 0 else None
    own = " and ".join(filter(None, [_sampling(identity), task_loss])) or _method(method)
    imitates = method.get("name") not in OF_FEATURES and method.get("kd_weight", method.get("weight")) != 0
    return own or (_teacher(identity) if imitates else None)


def _teacher(identity: Mapping[str, Any]) -> str | None:
    teacher = identity.get("teacher")
    by = evened_out_by(teacher) if teacher else None
    return by and f"teacher.{by}"


def _sampling(identity: Mapping[str, Any]) -> str | None:
    name, settings = name_and_settings(identity.get("recipe", {}).get("sampling", "instance"))
    as_they_are = name == "instance" or settings.get("q", 0) >= 1
    return None if as_they_are else f"sampling={name}"


def _task_loss(identity: Mapping[str, Any]) -> str | None:
    name, settings = name_and_settings(identity.get("task_loss", "ce"))
    deferred = settings.get("deferred", DEFERRED.get(name))
    weighs = deferred is not None and deferred < 1
    evens = 0 not in (settings.get("tau"), settings.get("beta")) and (name in TASK_LOSSES or weighs)
    return f"task_loss={name}" if evens else None


def _method(method: Mapping[str, Any]) -> str | None:
    name = method.get("name")
    if name not in METHODS:
        return None
    if name == "ltkd":  # its cross term does, where it is rebalanced
        left_out = method.get("rebalancing") == "none" or method.get("alpha") == 0
    elif name == "balanced_posterior":  # its labels' term does too
        left_out = False
    else:  # a negative student_prior corrects the student's logits in the objective, and not its weights
        left_out = method.get("weight") == 0 or method.get("student_prior", 0) < 0
    return None if left_out else f"method={name}"
