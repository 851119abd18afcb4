"""fit(): train one network on one method's objective. Teacher and student go through it alike.

Resume order, when <directory>/last.ckpt exists:
    1. model, method (its parameters and buffers), optimizer
    2. the epoch's plan, drawn again from the generator state at the epoch's start
    3. random state of torch (dropout and the like)
    4. metrics.jsonl is cut back to the epochs of the checkpoint
After that every number is the one that an uninterrupted run would have had.
"""

import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ltkd.errors import UserError
from ltkd.loop.checkpoint import SavePace
from ltkd.loop.evaluate import Evaluation, evaluate, named_groups
from ltkd.loop.graph import make_step
from ltkd.loop.interrupt import Interrupted, StopRequest
from ltkd.loop.progress import Progress
from ltkd.loop.schedule import learning_rate
from ltkd.loop.state import CHECKPOINT, State, resume, save_state
from ltkd.loop.step import Step
from ltkd.loop.totals import Totals
from ltkd.loop.tracking import Tracker
from ltkd.loop.training import Training
from ltkd.models.weights import save_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """`last`, `best` and `selected` are {"epoch": ..., **Evaluation on the test part}.

    With a validation split they have its Evaluation under "validation"; without one, `selected` is None.
    """

    last: dict[str, Any]
    best: dict[str, Any]
    selected: dict[str, Any] | None
    train_seconds: float
    images_per_second: float | None

    @property
    def accuracy(self) -> dict[str, Any]:
        """As result.json has it."""
        return {
            "last": self.last,  # the headline
            "best": self.best,  # best epoch ON THE TEST PART: only for comparison with papers that report it
            "selected": self.selected,  # best epoch on the validation split, where there is one
        }

    def followed_by(self, second: "FitResult") -> "FitResult":
        """Joins both stages of a two-stage training: the second's figures, the seconds of both, the first's speed."""
        seconds = self.train_seconds + second.train_seconds
        return replace(second, train_seconds=seconds, images_per_second=self.images_per_second)


def fit(training: Training, directory: Path, tracker: Tracker) -> FitResult:
    """Train to the recipe's last epoch, from <directory>/last.ckpt where there is one.

    Raises Interrupted after SIGTERM or Ctrl-C, with everything saved, and UserError when a loss term is not finite.
    """
    t = training
    torch.manual_seed(t.seed)  # dropout and the like; order, crops and flips have a generator of their own
    generator = torch.Generator().manual_seed(t.seed)  # on the CPU: the same plan on every device
    train_step = make_step(t)
    state = resume(t, directory / CHECKPOINT, train_step)
    tracker.restart(state.history)
    steps_per_epoch = t.train.num_batches(t.recipe.batch_size)
    progress = Progress(
        t.label, t.recipe.epochs, steps_per_epoch, state.epoch * steps_per_epoch + state.step, t.progress,
        part="test" if t.validation is None else "validation",
    )  # fmt: skip
    pace = SavePace()
    try:
        with StopRequest() as stop:
            while state.epoch < t.recipe.epochs:
                _train_epoch(t, state, train_step, generator, directory, stop, progress)
                _finish_epoch(t, state, train_step, directory, tracker, progress, pace)
        # here, where a signal raises again: none falls between the two
        if stop.signal is not None:  # it came after the last step: all is saved, but what follows is not wanted
            raise Interrupted(stop.signal)
    finally:
        progress.close()
        train_step.close()
    if state.last is None:  # no epoch at all: a pretrained network used as it is
        _evaluate(t, state, directory)
    return FitResult(state.last, state.best, state.selected, state.seconds, _images_per_second(t, state))


def _train_epoch(
    t: Training, state: State, train_step: Step, generator: torch.Generator, directory: Path, stop: StopRequest,
    progress: Progress,
) -> None:  # fmt: skip
    """The steps of one epoch that are not done yet."""
    epoch = state.epoch + 1
    if state.generator is None:
        state.generator = generator.get_state()
    generator.set_state(state.generator)
    order = t.sampler.order(epoch, t.recipe.epochs, generator)
    plan = t.train.draw_epoch(generator, order)
    state.repeats = t.sampler.repeats(order, t.split.groups)
    t.model.train(not t.frozen_features)
    t.method.train()
    t.method.start_epoch(epoch)
    train_step.start_epoch(epoch, plan, learning_rate(t.recipe, epoch))
    if state.step == 0:
        train_step.totals.start_epoch()

    start, seconds_before = time.perf_counter(), state.seconds
    for step in range(state.step, t.train.num_batches(t.recipe.batch_size)):
        if stop.signal is not None:
            state.seconds = seconds_before + time.perf_counter() - start
            try:
                _loss(state, train_step.totals, epoch, t)  # nothing broken is saved
                save_state(t, state, train_step, directory)
            except UserError as error:  # then the last checkpoint has to do; the request to stop holds
                logger.warning("%s", error)
            logger.warning("%s: stopped in epoch %d; the same command resumes it", t.label, epoch)
            raise Interrupted(stop.signal)
        state.images += train_step.run(step)
        state.step = step + 1
        if progress.step():
            progress.show(_loss(state, train_step.totals, epoch, t))

    _loss(state, train_step.totals, epoch, t)  # before anything of this epoch is kept; also waits for the device
    if not torch.stack([parameter.isfinite().all() for parameter in t.model.parameters()]).all():
        raise UserError(_diverged(t, epoch, "the weights became infinite or nan"))
    state.seconds = seconds_before + time.perf_counter() - start
    state.epoch, state.step, state.generator = epoch, 0, generator.get_state()


def _loss(state: State, totals: Totals, epoch: int, t: Training) -> float:
    """The mean objective of the epoch so far. UserError, naming epoch and term, if a term is not finite."""
    if not state.images:
        return 0.0
    sums = totals.sums_on_cpu()
    terms = {name: value.item() / state.images for name, value in sums.items() if name.startswith("loss/")}
    if not all(map(math.isfinite, terms.values())):
        # one broken term breaks the weights and with them all terms of the next step: the first one is the cause
        broken_at = totals.broken_at()
        steps = {name: broken_at[name] for name in terms}
        broken = [name for name in terms if steps[name] == min(steps.values())]
        names = " and ".join(repr(name.removeprefix("loss/")) for name in broken)
        what = f"loss term {names} became {terms[broken[0]]} at step {int(min(steps.values())) + 1}"
        raise UserError(_diverged(t, epoch, what))
    return sum(terms.values())


def _diverged(t: Training, epoch: int, what: str) -> str:
    return (
        f"{t.label}: {what} in epoch {epoch} (learning rate {learning_rate(t.recipe, epoch):g}); the last checkpoint "
        "is kept. Lower the learning rate or the term's weight, or lengthen the warm-up"
    )


def _finish_epoch(
    t: Training, state: State, train_step: Step, directory: Path, tracker: Tracker, progress: Progress,
    pace: SavePace,
) -> None:  # fmt: skip
    """Evaluate where it is due, log, save where it is due."""
    epoch, last = state.epoch, state.epoch == t.recipe.epochs
    t.method.end_epoch(t.model)
    metrics: dict[str, Any] = {"epoch": epoch, "learning_rate": learning_rate(t.recipe, epoch)}
    means = {name: value / state.images for name, value in train_step.totals.sums_on_cpu().items()}
    for name, mean in means.items():
        if mean.ndim == 2:  # a method's figure: sum over the images of each group, and their number
            totals, counts = mean.unbind(1)
            metrics[f"train/{name}"] = (totals.sum() / counts.sum()).item()
            mean = totals / counts  # nan for a group of which no image was seen
        if mean.ndim:
            by_group = named_groups(t.split, mean).items()
            metrics |= {f"train/{name}/{key}": v for key, v in by_group if v is not None and math.isfinite(v)}
        else:
            metrics[f"train/{name}"] = mean.item()
    metrics |= {f"train/repeats/{t.split.group_names[group]}": value for group, value in state.repeats.items()}
    loss = metrics["train/loss"] = sum(mean.item() for name, mean in means.items() if name.startswith("loss/"))

    shown = None  # the last: validation where there is one, who tunes should not look at the test part
    if last or epoch % t.evaluate_every == 0:
        for part, evaluation in _evaluate(t, state, directory).items():
            metrics |= evaluation.metrics(part)
            shown = evaluation
    metrics["images_per_second"] = _images_per_second(t, state)
    state.history.append(metrics)
    state.images = 0
    if last or pace.is_due():
        with pace.saving():
            save_state(t, state, train_step, directory)
    tracker.log(metrics)
    progress.epoch_done(epoch, loss, shown)


def _evaluate(t: Training, state: State, directory: Path) -> dict[str, Evaluation]:
    """The network as it is now, on the test part and then the validation split where there is one; noted in `state`."""
    parts = {"test": t.test} | ({} if t.validation is None else {"validation": t.validation})
    evaluations = {name: evaluate(t.model, part, t.split, t.autocast) for name, part in parts.items()}
    test, validation = evaluations["test"], evaluations.get("validation")
    record = state.last = {"epoch": state.epoch, **asdict(test)}
    if state.best is None or test.all > state.best["all"]:
        state.best = record
    if validation is not None:
        record["validation"] = asdict(validation)
        if state.selected is None or validation.all > state.selected["validation"]["all"]:
            state.selected = record
            save_weights(t.model, directory / "selected.safetensors", {"epoch": str(state.epoch)})
    return evaluations


def _images_per_second(t: Training, state: State) -> float | None:
    return state.epoch * len(t.train) / state.seconds if state.seconds else None
