"""Shows how a training goes, as a bar on a terminal, as plain lines elsewhere and in the log file."""

import logging
import sys
import time

from tqdm import tqdm

from ltkd.loop.evaluate import Evaluation

logger = logging.getLogger(__name__)

MAX_LINES = 12  # plain lines per training, more only where epochs are long: a log that can be read
MAX_SILENCE = 60  # seconds without a plain line
BAR = "{desc} {percentage:3.0f}%|{bar:8}| {remaining} left{postfix}"  # fits 80 columns with loss and accuracies


def shown_as(mode: str) -> str:
    """Resolves run.progress to bar, lines or none."""
    if mode == "auto":
        return "bar" if sys.stderr.isatty() else "lines"
    return mode


class Progress:
    """Counts steps of `num_epochs` x `steps_per_epoch`; shows loss, latest accuracies and the time left.

    `part` says what the accuracies are of: test or validation.
    """

    def __init__(
        self, label: str, num_epochs: int, steps_per_epoch: int, first_step: int, mode: str, part: str
    ) -> None:
        self.label, self.num_epochs, self.part = label, num_epochs, part
        mode = shown_as(mode)
        self.level = logging.INFO if mode == "lines" else logging.DEBUG  # DEBUG: for the log file alone
        self.bar = tqdm(
            total=num_epochs * steps_per_epoch, initial=first_step, desc=label, leave=False, disable=mode != "bar",
            dynamic_ncols=True, smoothing=0.05, bar_format=BAR,
        )  # fmt: skip
        self.start, self.first_epoch = time.monotonic(), first_step / steps_per_epoch
        self.last_line = self.start - MAX_SILENCE  # so that the first epoch has a line
        self.evaluation: Evaluation | None = None
        self.evaluated = 0  # the epoch of it

    def step(self) -> bool:
        """Count one step. Returns True when the bar was redrawn, the moment to give it a fresh loss."""
        return bool(self.bar.update(1))

    def show(self, loss: float) -> None:
        groups = ""
        if self.evaluation is not None:
            figures = (value for value in self.evaluation.per_group.values() if value is not None)
            groups = f", {self.part} {self.evaluation.all:.1f} ({'/'.join(f'{value:.0f}' for value in figures)})"
        self.bar.set_postfix_str(f"loss {loss:.2f}{groups}", refresh=False)

    def epoch_done(self, epoch: int, loss: float, evaluation: Evaluation | None) -> None:
        if evaluation is not None:
            self.evaluation, self.evaluated = evaluation, epoch
        self.show(loss)
        now = time.monotonic()
        is_due = epoch % -(-self.num_epochs // MAX_LINES) == 0 or epoch == self.num_epochs
        if is_due or now - self.last_line >= MAX_SILENCE:
            self.last_line = now
            time_left = (now - self.start) / (epoch - self.first_epoch) * (self.num_epochs - epoch)
            logger.log(
                self.level, "%s: epoch %d/%d  loss %.3f%s  (%s left)",
                self.label, epoch, self.num_epochs, loss, self._accuracies(epoch), tqdm.format_interval(time_left),
            )  # fmt: skip

    def _accuracies(self, epoch: int) -> str:
        if self.evaluation is None:
            return ""
        named = self.evaluation.accuracies | self.evaluation.per_group
        figures = " ".join(f"{name} {value:.1f}" for name, value in named.items() if value is not None)
        when = "" if epoch == self.evaluated else f" of epoch {self.evaluated}"
        return f"  {self.part}{when}: {figures}"

    def close(self) -> None:
        self.bar.close()
