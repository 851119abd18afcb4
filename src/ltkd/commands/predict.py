"""Predicts the classes of images with a finished run's network, or with a file that export wrote.

    python scripts/predict.py RUN IMAGES...                         CSV on the screen: the five best classes of each
    python scripts/predict.py RUN photos/ output=predictions.csv    or .jsonl; all images below the folder
    python scripts/predict.py model.onnx list.txt                   a .txt file has a path in each line
    python scripts/predict.py RUN photos/ correction=logit_adjusted     corrected for the class counts

RUN is a run's folder (train.py names it last), or a .safetensors, .pt2 or .onnx file of scripts/export.py; the training
data is not needed. tau=1 is the correction's strength: without it, what the run's validation split chose, else 1.
batch=64 images at a time, device=auto. Files that cannot be read are named at the end and make the exit code 1.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

from ltkd.commands.arguments import split_arguments, whole_number
from ltkd.errors import UserError, unknown_name

CORRECTIONS = ("none", "logit_adjusted")
NAMED = 10  # unreadable files


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    try:
        return _predict(arguments)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except BrokenPipeError:  # of `| head`
        sys.stderr.close()
        return 0


def _predict(arguments: list[str]) -> int:
    from ltkd.deploy.open import open_network  # here: --help needs no torch
    from ltkd.deploy.predict import WRITERS, collecting, find_images, predict
    from ltkd.files import atomic_text_writer
    from ltkd.machine import resolve_device

    own, places = split_arguments(arguments, ("output", "correction", "tau", "batch", "device"))
    if len(places) < 2:
        raise UserError("predict: takes RUN IMAGES..., a network and what it is to be shown")
    correction = own.get("correction", "none")
    if correction not in CORRECTIONS:
        raise unknown_name("correction", correction, CORRECTIONS)
    if "tau" in own and correction == "none":
        raise UserError("tau: has no effect without correction=logit_adjusted")
    output = Path(own["output"]) if "output" in own else None
    if output is not None and output.suffix not in WRITERS:
        raise UserError(f"output: should end in {' or '.join(WRITERS)}, got {output}")
    batch_size = whole_number(own, "batch", 64)
    files = find_images(places[1:])
    network = open_network(places[0], resolve_device(own.get("device", "auto")))
    about = network.about
    tau = _tau(own, about.tau) if correction == "logit_adjusted" else 0.0
    if tau and about.corrects_prior:
        sys.stderr.write("warning: this network was trained to correct for the class counts; this does it twice\n")
    unreadable = []
    predictions = predict(network, files, tau=tau, batch_size=batch_size)
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


def _tau(own: dict[str, str], default: float) -> float:
    try:
        tau = float(own.get("tau", default))
    except ValueError:
        tau = -1.0
    if not 0 <= tau < float("inf"):
        raise UserError(f"tau: should be a number from 0 on, got {own['tau']!r}")
    return tau
