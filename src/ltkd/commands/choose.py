"""Chooses what to train on your data within a budget of minutes, and prints the command of the full run.

    python scripts/choose.py dataset=image_folder dataset.path=FOLDER budget=60
    python scripts/choose.py dataset=image_folder dataset.path=FOLDER student=resnet20 recipe.epochs=100 budget=240

Cross-entropy, balanced softmax, KD, LTKD and BKD, each as it is and with its logits adjusted for the class counts, are
compared on validation images held out of the training part, by successive halving: short trainings of all, longer ones
of the best. The answer says by how much the winner leads and whether that is more than noise. Other settings are those
of train.py. Repeat the command to resume. Runs and answer go to outputs/choose/.
"""

import logging
import sys
import time

from ltkd.commands.arguments import split_arguments
from ltkd.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    from ltkd.deploy.choose import Chooser, lines_of  # here: --help needs no torch

    logging.getLogger("ltkd").setLevel(logging.ERROR)
    start = time.monotonic()

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        own, overrides = split_arguments(arguments, ("budget",))
        chooser = Chooser(overrides, _minutes(own), tell)
        choice = chooser.choose()
        written = chooser.write(choice)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on\n")
        return 130
    tell("\n".join(["", *lines_of(choice, chooser.data)]))
    tell(f"\nfull run:\n    {chooser.command(choice)}\n")
    tell(f"written: {written}; {(time.monotonic() - start) / 60:.1f} minutes")
    return 0


def _minutes(own: dict[str, str]) -> float:
    if "budget" not in own:
        raise UserError("budget: missing; budget=60 is an hour")
    try:
        minutes = float(own["budget"])
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise UserError(f"budget: should be a number of minutes, got {own['budget']!r}")
    return minutes
