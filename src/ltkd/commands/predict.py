"""Predicts the classes of images with a finished run's network, or with a file that export wrote.

    python scripts/predict.py RUN IMAGES...                         CSV on the screen: the five best classes of each
    python scripts/predict.py RUN photos/ output=predictions.csv    or .jsonl; all images below the folder
    python scripts/predict.py model.onnx list.txt                   a .txt file has a path in each line
    python scripts/predict.py RUN photos/ correction=logit_adjusted     corrected for the class counts

The training data is not needed. Files that cannot be read are named at the end and make the exit code 1.
"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from ltkd.commands.script import Parser, command, number, whole_number
from ltkd.errors import UserError, unknown_name

CORRECTIONS = ("none", "logit_adjusted")
NAMED = 10  # unreadable files


PARSER = Parser(__doc__)  # what stands behind an option is an image too
PARSER.epilog = "options can be written KEY=VALUE too"
PARSER.add_argument("network", metavar="RUN", help="a run's folder (train.py names it last) or a file of export.py")
PARSER.add_argument(
    "images", nargs="*", metavar="IMAGES", help="files, folders, or a .txt file with a path in each line"
)
PARSER.add_argument("--output", type=Path, metavar="FILE", help="a .csv or .jsonl file (default: CSV on the screen)")
PARSER.add_argument("--correction", default="none", metavar="NAME", help=f"{' or '.join(CORRECTIONS)} (default: none)")
PARSER.add_argument(
    "--tau",
    type=number,
    metavar="TAU",
    help="strength of the correction (default: what validation images chose, else 1)",
)
PARSER.add_argument("--batch", type=whole_number, default=64, metavar="N", help="images at a time (default: 64)")
PARSER.add_argument("--device", default="auto", help="default: auto")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, further_images: list[str]) -> int:
    from ltkd.deploy.open import open_network  # here: --help needs no torch
    from ltkd.deploy.predict import WRITERS, collecting, find_images, predict
    from ltkd.files import atomic_text_writer
    from ltkd.machine import resolve_device

    places = [*options.images, *further_images]
    if not places:
        raise UserError("predict: takes RUN IMAGES..., a network and what it is to be shown")
    if options.correction not in CORRECTIONS:
        raise unknown_name("correction", options.correction, CORRECTIONS)
    if options.tau is not None and options.correction == "none":
        raise UserError("tau: has no effect without correction=logit_adjusted")
    output = options.output
    if output is not None and output.suffix not in WRITERS:
        raise UserError(f"output: should end in {' or '.join(WRITERS)}, got {output}")
    files = find_images(places)
    network = open_network(options.network, resolve_device(options.device))
    about = network.about
    tau = (about.tau if options.tau is None else options.tau) if options.correction == "logit_adjusted" else 0.0
    if tau and about.evened_out_by:
        sys.stderr.write(f"warning: a second correction: {about.evened_out_by} evened the classes out already\n")
    unreadable = []
    predictions = predict(network, files, tau=tau, batch_size=options.batch)
    write = WRITERS[output.suffix if output else ".csv"]
    with atomic_text_writer(output) if output else nullcontext(sys.stdout) as file:
        write(collecting(predictions, len(files), unreadable), file, about.num_classes)
    for one in unreadable[:NAMED]:
        sys.stderr.write(f"unreadable: {one.file} ({one.problem})\n")
    more = f", {len(unreadable) - NAMED} of them not named" if len(unreadable) > NAMED else ""
    corrected = f", corrected with tau {tau:g}" if tau else ""
    where = f"; written: {output}" if output else ""
    sys.stderr.write(
        f"{len(files) - len(unreadable)} of {len(files)} images classified{corrected}, "
        f"{len(unreadable)} unreadable{more}{where}\n"
    )
    return 1 if unreadable else 0
