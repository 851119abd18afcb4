"""Predicts the classes of images with a finished run's network, or with a file that export wrote.

    python scripts/predict.py RUN IMAGES...                         CSV on the screen: the five best classes of each
    python scripts/predict.py RUN photos/ output=predictions.csv    or .jsonl; all images below the folder
    python scripts/predict.py model.onnx list.txt                   a .txt file has a path in each line
    python scripts/predict.py RUN photos/ correction=logit_adjusted tau=1    corrected for the class counts, or
                                                                    tau_normalized; without tau= the run's choice

The training data is not needed. Files that cannot be read are all named on standard error, at the end, and make the
exit code 1; they have no line in the output.
"""

import argparse
import io
import sys
from contextlib import nullcontext
from pathlib import Path

from ltkd.commands.script import Parser, command, number, whole_number
from ltkd.errors import UserError, printable, unknown_name
from ltkd.results.read import POST_HOC

CORRECTIONS = ("none", *POST_HOC)

PARSER = Parser(__doc__)  # what stands behind an option is an image too
PARSER.epilog = "options can be written KEY=VALUE too"
PARSER.add_argument("network", metavar="RUN", help="a run's folder (train.py names it last) or a file of export.py")
PARSER.add_argument(
    "images", nargs="*", metavar="IMAGES", help="files, folders, or a .txt file with a path in each line"
)
PARSER.add_argument("--output", type=Path, metavar="FILE", help="a .csv or .jsonl file (default: CSV on the screen)")
PARSER.add_argument("--correction", default="none", metavar="NAME", help=f"{', '.join(CORRECTIONS)} (default: none)")
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
    from ltkd.deploy.corrections import build_correction, default_tau  # here: --help needs no torch
    from ltkd.deploy.open import open_network
    from ltkd.deploy.predict import NOT_UTF8, WRITERS, collecting, find_images, predict
    from ltkd.files import atomic_text_writer
    from ltkd.machine import resolve_device

    places = [*options.images, *further_images]
    if not places:
        raise UserError("predict: takes RUN IMAGES..., a network and what it is to be shown")
    if options.correction not in CORRECTIONS:
        raise unknown_name("correction", options.correction, CORRECTIONS)
    if options.tau is not None and options.correction == "none":
        raise UserError("tau: has no effect without correction=logit_adjusted or tau_normalized")
    output = options.output
    if output is not None and output.suffix not in WRITERS:
        raise UserError(f"output: should end in {' or '.join(WRITERS)}, got {output}")
    files = find_images(places)
    network = open_network(options.network, resolve_device(options.device))
    about = network.about
    correct, correction_note = None, ""
    if options.correction != "none":
        correction = build_correction(about, options.correction)
        tau = default_tau(about, options.correction)[0] if options.tau is None else options.tau
        correct, correction_note = (lambda logits: correction(logits, tau)), f", {options.correction} with tau {tau:g}"
    if correct and about.evened_out_by:
        sys.stderr.write(f"warning: a second correction: {about.evened_out_by} evened the classes out already\n")
    unreadable = []
    predictions = predict(network, files, correct=correct, batch_size=options.batch)
    write = WRITERS[output.suffix if output else ".csv"]
    with atomic_text_writer(output) if output else nullcontext(sys.stdout) as file:
        if isinstance(file, io.TextIOWrapper) and output:
            file.reconfigure(errors=NOT_UTF8[output.suffix])
        write(collecting(predictions, len(files), unreadable), file, about.num_classes)
    for prediction in unreadable:
        sys.stderr.write(f"unreadable: {printable(prediction.file)} ({prediction.problem})\n")
    where = f"; written: {output}" if output else ""
    sys.stderr.write(
        f"{len(files) - len(unreadable)} of {len(files)} images classified{correction_note}, "
        f"{len(unreadable)} unreadable{where}\n"
    )
    return 1 if unreadable else 0
