"""Trains one network on one method's objective. Teacher and student go through it alike.

Resume order, where there is a checkpoint:
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
from typing import Any

import torch

from ltkd.errors import UserError
from ltkd.loop.checkpoint import SavePace
from ltkd.loop.evaluate import Evaluation, evaluate
from ltkd.loop.graph import make_step
from ltkd.loop.interrupt import Interrupted, StopRequest
from ltkd.loop.progress import Progress
from ltkd.loop.schedule import learning_rate
from ltkd.loop.state import resume, save_state
from ltkd.loop.tracking import Tracker
from ltkd.loop.training import Training
from ltkd.loop.turns import turns
from ltkd.models.weights import save_weights
from ltkd.results.files import RunFiles
from ltkd.results.result import Accuracy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """Accuracy and speed of a finished training."""

    accuracy: Accuracy
    train_seconds: float
    images_per_second: float | None

    def followed_by(self, second: "FitResult") -> "FitResult":
        """Join both stages of a two-stage training (accuracy of the second, seconds of both, speed of the first)."""
        seconds = self.train_seconds + second.train_seconds
        return replace(second, train_seconds=seconds, images_per_second=self.images_per_second)


class Trainer:
    """One training; `Trainer(training, files, tracker).fit()` carries it out.

    Of the run's files it reads and writes the checkpoint and the selected weights; the tracker has the metrics.
    """

    def __init__(self, training: Training, files: RunFiles, tracker: Tracker) -> None:
        self.training, self.files, self.tracker = training, files, tracker
        self.ranks = training.ranks
        self.step = make_step(training)
        self.generator = torch.Generator()  # on the CPU: the same plan on every device
        self.stop = StopRequest(patient=not self.ranks.alone)
        self.pace = SavePace()

    def fit(self) -> FitResult:
        """Train to the recipe's last epoch, from the folder's checkpoint where there is one.

        Raises Interrupted after SIGTERM or Ctrl-C, with everything saved, and UserError when a loss term is not finite.
        """
        t = self.training
        torch.manual_seed(t.seed)  # dropout and the like; order, crops and flips have a generator of their own
        self.generator.manual_seed(t.seed)
        self._follow_the_first(parameters=True)
        self.state = resume(t, self.files.checkpoint, self.step)
        self.tracker.restart(self.state.history)
        self.progress = Progress(
            t.label, t.recipe.epochs, t.steps_per_epoch, self.state.steps(t), t.progress, part=list(t.held_out)[-1]
        )
        try:
            with self.stop:
                while self.state.epoch < t.recipe.epochs:
                    self.train_epoch()
                    self.finish_epoch()
            # here, where a signal raises again: none falls between the two
            if signal := self.signal():  # it came after the last step: all is saved, but nothing more is wanted
                raise Interrupted(signal)
        finally:
            self.progress.close()
            self.step.close()
        state = self.state
        if state.last is None:  # no epoch at all: a pretrained network used as it is
            self.evaluate()
        self.step.average.deploy()
        accuracy: Accuracy = {"last": state.last, "best": state.best, "selected": state.selected}
        return FitResult(accuracy, state.seconds, self.images_per_second())

    def train_epoch(self) -> None:
        """Carry out the steps of one epoch that are not done yet."""
        t, state = self.training, self.state
        epoch = state.epoch + 1
        self._start_epoch(epoch)
        start, seconds_before = time.perf_counter(), state.seconds
        for number in range(state.step, t.steps_per_epoch):
            if signal := self.signal():
                state.seconds = seconds_before + time.perf_counter() - start
                self._save_and_stop(epoch, signal)
            state.images += self.step.run(number)
            state.step = number + 1
            turns().pass_on()
            if self.progress.step():
                self.progress.show(self.check_finite(epoch))

        turns().wait_for(t.device)
        # before anything of this epoch is kept; also waits for the device
        self.ranks.from_first(lambda: self.check_finite(epoch, weights=True))
        state.seconds = seconds_before + time.perf_counter() - start
        state.epoch, state.step, state.generator = epoch, 0, self.generator.get_state()

    def _start_epoch(self, epoch: int) -> None:
        t, state = self.training, self.state
        if state.generator is None:
            state.generator = self.generator.get_state()
        self.generator.set_state(state.generator)
        order = t.sampler.order(epoch, t.recipe.epochs, self.generator)
        plan = t.train.draw_epoch(self.generator, order)
        state.repeats = t.sampler.repeats(order, t.split.groups)
        t.model.train(not t.frozen_features)
        t.method.train()
        t.method.start_epoch(epoch)
        self.step.start_epoch(epoch, plan, learning_rate(t.recipe, epoch))
        if state.step == 0:
            self.step.totals.start_epoch()

    def signal(self) -> int:
        """The signal that asks to stop, in whichever process it arrived, or 0."""
        return self.ranks.largest(self.stop.signal or turns().signal or 0)

    def _follow_the_first(self, *, parameters: bool = False) -> None:
        """Give every process the first one's buffers, the statistics of normalisation above all, and parameters.

        Those of the first process are evaluated and saved. Parameters need it before the first step alone.
        """
        modules = (self.training.model, self.training.method)
        tensors = [buffer for module in modules for buffer in module.buffers()] + self.step.average.tensors()
        if parameters:
            tensors += [parameter for module in modules for parameter in module.parameters()]
        self.ranks.equalize(tensors)

    def _save_and_stop(self, epoch: int, signal: int) -> None:
        try:
            self.check_finite(epoch)  # nothing broken is saved
            if self.ranks.is_first:
                save_state(self.files.checkpoint, self.training, self.state, self.step)
        except UserError as error:  # then the last checkpoint has to do; the request to stop holds
            logger.warning("%s", error)
        logger.warning("%s: stopped in epoch %d; the same command resumes it", self.training.label, epoch)
        raise Interrupted(signal)

    def check_finite(self, epoch: int, *, weights: bool = False) -> float:
        """Return the mean objective of the epoch so far.

        UserError, naming epoch and term, when a loss term is not finite; with `weights`, when a parameter is not.
        """
        t = self.training
        terms = self.step.totals.loss_terms(self.state.images)
        broken = None
        if not all(map(math.isfinite, terms.values())):
            names, step = self.step.totals.first_broken(terms)
            broken = f"loss term {' and '.join(map(repr, names))} became {terms[names[0]]} at step {step + 1}"
        elif weights and not torch.nn.utils.get_total_norm(t.model.parameters(), math.inf).isfinite():
            broken = "the weights became infinite or nan"
        if broken is not None:
            raise UserError(
                f"{t.label}: {broken} in epoch {epoch} (learning rate {learning_rate(t.recipe, epoch):g}); the last "
                "checkpoint is kept. Lower the learning rate or the term's weight, or lengthen the warm-up"
            )
        return sum(terms.values())

    def finish_epoch(self) -> None:
        """Evaluate where it is due, log, save where it is due."""
        t, state = self.training, self.state
        epoch, last = state.epoch, state.epoch == t.recipe.epochs
        self._follow_the_first()
        t.method.end_epoch(t.model)
        metrics: dict[str, Any] = {"epoch": epoch, "learning_rate": learning_rate(t.recipe, epoch)}
        metrics |= self.step.totals.metrics(state.images, t.split)
        metrics |= {f"train/repeats/{t.split.group_names[group]}": value for group, value in state.repeats.items()}

        shown = None  # the last: validation where there is one, who tunes should not look at the test part
        if last or epoch % t.evaluate_every == 0:
            for part, evaluation in self.evaluate().items():
                metrics |= evaluation.metrics(part)
                shown = evaluation
        metrics["images_per_second"] = self.images_per_second()
        state.history.append(metrics)
        state.images = 0
        if self.ranks.is_first and (last or self.pace.is_due()):
            with self.pace.saving():
                save_state(self.files.checkpoint, t, state, self.step)
        self.tracker.log(metrics)
        self.progress.epoch_done(epoch, metrics["train/loss"], shown)

    def evaluate(self) -> dict[str, Evaluation]:
        """Evaluate the network as it is now on the parts held out, in their order, and note it in the state."""
        with self.step.average.applied():
            return self._evaluate()

    def _evaluate(self) -> dict[str, Evaluation]:
        t, state = self.training, self.state
        evaluations = {name: evaluate(t.model, part, t.split, t.autocast) for name, part in t.held_out.items()}
        test, validation = evaluations["test"], evaluations.get("validation")
        record = state.last = {"epoch": state.epoch, **asdict(test)}
        if state.best is None or test.all > state.best["all"]:
            state.best = record
        if validation is not None:
            record["validation"] = asdict(validation)
            if state.selected is None or validation.all > state.selected["validation"]["all"]:
                state.selected = record
                if self.ranks.is_first:
                    save_weights(t.model, self.files.selected, {"epoch": str(state.epoch)})
        return evaluations

    def images_per_second(self) -> float | None:
        """Speed of the finished epochs' steps."""
        state = self.state
        return state.epoch * len(self.training.train) / state.seconds if state.seconds else None
