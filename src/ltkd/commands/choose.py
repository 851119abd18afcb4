"""Chooses what to train on your data within a budget of minutes, and prints the command of the full run.

    python scripts/choose.py dataset=image_folder dataset.path=FOLDER budget=60
    python scripts/choose.py dataset=image_folder dataset.path=FOLDER student=resnet20 recipe.epochs=100 budget=240

Cross-entropy, balanced softmax, KD, LTKD, BKD and the balanced posterior (with one teacher) are compared on validation
images held out of the training part; cross-entropy and KD, which do not make up for the class counts, also with their
logits adjusted for them. By successive halving: short trainings of all, longer ones of the best. The answer says by how
much the winner leads, whether that is more than noise, and what left in a tie. Other settings are those of train.py.
Repeat the command to resume. Runs and answer go to outputs/choose/; the last line names the answer's file.
"""

import argparse
import sys
import time

from ltkd.commands.script import Parser, command, number
from ltkd.errors import UserError

PARSER = Parser(__doc__)
PARSER.add_argument("--budget", type=number, metavar="MINUTES", help="that all trainings together may take")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> None:
    from ltkd.deploy.choose import Chooser, lines_of  # here: --help needs no torch
    from ltkd.deploy.quiet import errors_only

    if not options.budget:
        raise UserError("budget: missing; budget=60 is an hour")
    start = time.monotonic()

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    with errors_only():
        chooser = Chooser(settings, options.budget, tell)
        choice = chooser.choose()
        written = chooser.write(choice)
    tell("\n".join(["", *lines_of(choice, chooser.data)]))
    tell(f"\nfull run:\n    {chooser.command(choice)}\n")
    tell(f"written: {written}; {(time.monotonic() - start) / 60:.1f} minutes")
