"""Corrects a finished network for the class counts, without training it further.

Both are functions of its logits alone: one more pass over the test part (and the validation split) serves them all.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor, nn

from ltkd.config.schema import Config
from ltkd.data import DeviceData
from ltkd.loop.evaluate import predict_logits, summarize
from ltkd.loop.precision import autocast
from ltkd.losses import posthoc_logit_adjustment, tau_normalised_logits
from ltkd.results.result import PostHoc, Result
from ltkd.setup import Setup

logger = logging.getLogger(__name__)

KINDS = ("logit_adjusted", "tau_normalized")
CANDIDATES = [step / 10 for step in range(21)]  # of tau, those of arXiv 1910.09217
DEFAULT = 1.0  # where there is no validation split: the theory's value for logit adjustment, equal norms for weights

Correction = Callable[[Tensor, float], Tensor]  # (logits [N, C], tau) -> logits [N, C]


def post_hoc_corrections(setup: Setup, model: nn.Module) -> PostHoc:
    """Evaluate the network with its logits adjusted and with its classifier tau-normalised."""
    settings = asdict(setup.config.evaluation)
    corrections = {"logit_adjusted": _logit_adjustment(setup), "tau_normalized": _tau_normalisation(model)}
    wanted = {
        kind: correction
        for kind, correction in corrections.items()
        if correction is not None and settings[kind] is not None
    }
    parts = {"test": setup.test} | ({"validation": setup.validation} if setup.validation is not None else {})
    logits = {name: _logits(setup, model, part) for name, part in parts.items()} if wanted else {}
    corrected: PostHoc = dict.fromkeys(corrections)
    for kind, correction in wanted.items():
        tau, chosen_by = settings[kind], "setting"
        if tau == "auto" and setup.validation is None:
            tau, chosen_by = DEFAULT, "default"
        elif tau == "auto":
            tau, chosen_by = choose_tau(correction, logits["validation"], setup.validation.labels.cpu()), "validation"
        corrected[kind] = {"tau": tau, "chosen_by": chosen_by} | {
            name: asdict(summarize(correction(logits[name], tau), part.labels.cpu(), setup.data.split))
            for name, part in parts.items()
        }
    return corrected


def warn_of_other_tau(config: Config, result: Result) -> None:
    """Warns of a tau other than the finished run's, which is not evaluated again."""
    for kind in KINDS:
        tau, corrected = getattr(config.evaluation, kind), (result.get("post_hoc") or {}).get(kind)
        if tau not in (None, "auto", corrected and corrected["tau"]):
            what = f"with tau {corrected['tau']:g}" if corrected else "without this figure"
            logger.warning("evaluation.%s=%s: it was evaluated %s", kind, tau, what)


def choose_tau(correction: Correction, logits: Tensor, labels: Tensor) -> float:
    """Choose the candidate with the most right answers; of several, the one nearest to the default."""

    def rank(tau: float) -> tuple[int, float]:
        return int((correction(logits, tau).argmax(1) == labels).sum()), -abs(tau - DEFAULT)

    return max(CANDIDATES, key=rank)


def _logits(setup: Setup, model: nn.Module, part: DeviceData) -> Tensor:
    return predict_logits(model, part, lambda: autocast(setup.config.precision, setup.device))


def _logit_adjustment(setup: Setup) -> Correction | None:
    counts = torch.as_tensor(setup.data.split.class_counts)
    if (counts == 0).any():
        logger.info("post-hoc logit adjustment left out: it needs a training image of every class")
        return None
    return lambda logits, tau: posthoc_logit_adjustment(logits, counts, tau=tau)


def _tau_normalisation(model: nn.Module) -> Correction | None:
    classifier = getattr(model, "classifier", None)
    if not isinstance(classifier, nn.Linear):
        logger.info("tau-normalisation left out: it needs a linear classifier, and this network has none")
        return None
    weight, bias = (
        None if parameter is None else parameter.detach().float().cpu()
        for parameter in (classifier.weight, classifier.bias)
    )
    return lambda logits, tau: tau_normalised_logits(logits, weight, bias, tau=tau)
