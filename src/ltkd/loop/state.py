"""Keeps the state of a training while it runs, saves it to a checkpoint, resumes from there."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltkd.errors import UserError
from ltkd.loop.checkpoint import load_checkpoint, save_checkpoint
from ltkd.loop.step import Step
from ltkd.loop.training import Training
from ltkd.results.result import EpochRecord

logger = logging.getLogger(__name__)


@dataclass
class State:
    """The state of a training, without the tensors of model, method and optimizer."""

    epoch: int = 0  # completed epochs
    step: int = 0  # completed steps of the epoch under way
    images: int = 0  # seen in the epoch under way
    generator: Tensor | None = None  # state at the start of the epoch under way
    history: list[dict[str, Any]] = field(default_factory=list)  # one dictionary of metrics per epoch
    last: EpochRecord | None = None  # the latest evaluation
    best: EpochRecord | None = None  # highest test accuracy: for comparison with papers that report it
    selected: EpochRecord | None = None  # highest validation accuracy
    seconds: float = 0.0  # of training steps, over all sessions
    repeats: dict[int, float] = field(default_factory=dict)  # by group, of the epoch under way; as Sampler.repeats

    def steps(self, t: Training) -> int:
        """Counts the completed steps of all epochs."""
        return self.epoch * t.steps_per_epoch + self.step


def save_state(path: Path, t: Training, state: State, step: Step) -> None:
    """Write all that a training goes on from."""
    cuda = t.device.type == "cuda"
    save_checkpoint(
        path,
        {
            "identity": t.identity,
            "evaluate_every": t.evaluate_every,
            "model": t.model.state_dict(),
            "method": t.method.state_dict(),
            **step.state_dict(),
            "random": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(t.device) if cuda else None},
            "state": vars(state),
        },
    )


def resume(t: Training, path: Path, step: Step) -> State:
    """Put training and step into the state that `path` holds; where there is no such file they stay as they are.

    UserError when it is damaged, or of another configuration or rhythm of evaluation.
    """
    saved = t.ranks.from_first(lambda: load_checkpoint(path) if path.exists() else None)
    if saved is None:
        return State()
    if saved["identity"] != t.identity:
        raise UserError(
            f"{path}: belongs to another configuration ({saved['identity']}, not {t.identity}); move it away"
        )
    rhythm = saved.get("evaluate_every", t.evaluate_every)  # checkpoints of before do not say
    if rhythm != t.evaluate_every:  # `best` and `selected` would be of neither rhythm
        raise UserError(
            f"run.evaluate_every: {path} was begun with {rhythm}, not {t.evaluate_every}; go on with {rhythm}, or move "
            "the checkpoint away to start this training from the beginning"
        )
    t.model.load_state_dict(saved["model"])
    t.method.load_state_dict(saved["method"])
    step.load_state_dict(saved)
    torch.set_rng_state(saved["random"]["cpu"])
    if t.device.type == "cuda" and saved["random"]["cuda"] is not None:
        torch.cuda.set_rng_state(saved["random"]["cuda"], t.device)
    state = State(**saved["state"])
    if state.epoch or state.step:
        logger.info("%s: resumed after epoch %d of %d", t.label, state.epoch, t.recipe.epochs)
    return state
