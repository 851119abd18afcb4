"""What the user sees while a network trains: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger(__name__)

MAX_LINES = 12  # plain lines per training: a log that can be read


class Progress:
    """Counts steps of `num_epochs` x `steps_per_epoch`; shows loss, latest accuracies and the time left."""

    def __init__(self, label: str, num_epochs: int, steps_per_epoch: int, first_step: int, mode: str) -> None:
        self.label, self.num_epochs = label, num_epochs
        if mode == "auto":
            mode = "bar" if sys.stderr.isatty() else "lines"
        self.lines = mode == "lines"
        self.bar = tqdm(
            total=num_epochs * steps_per_epoch, initial=first_step, desc=label, unit="step", leave=False,
            disable=mode != "bar", dynamic_ncols=True, smoothing=0.05,
        )  # fmt: skip
        self.start, self.first_epoch = time.monotonic(), first_step / steps_per_epoch
        self.accuracies = ""

    def step(self) -> bool:
        """One step is done. True when the bar was redrawn: the moment to give it a fresh loss."""
        return bool(self.bar.update(1))

    def show(self, epoch: int, loss: float) -> None:
        self.bar.set_postfix_str(f"epoch {epoch}/{self.num_epochs} loss {loss:.3f} {self.accuracies}", refresh=False)

    def epoch_done(self, epoch: int, loss: float, accuracies: dict[str, float | None] | None) -> None:
        if accuracies is not None:
            self.accuracies = " ".join(f"{k} {v:.1f}" for k, v in accuracies.items() if v is not None)
        self.show(epoch, loss)
        every = -(-self.num_epochs // MAX_LINES)
        if self.lines and (epoch % every == 0 or epoch == self.num_epochs):
            left = (time.monotonic() - self.start) / (epoch - self.first_epoch) * (self.num_epochs - epoch)
            logger.info(
                "%s: epoch %d/%d  loss %.3f  %s  (%s left)",
                self.label, epoch, self.num_epochs, loss, self.accuracies, tqdm.format_interval(left),
            )  # fmt: skip

    def close(self) -> None:
        self.bar.close()
