"""Exports a finished run's network for use elsewhere, checks each file against it and times it.

    python scripts/export.py RUN                          model.safetensors (+ .json), .pt2 and .onnx in RUN/export
    python scripts/export.py RUN formats=onnx,int8        ONNX, and ONNX in eight bits with its accuracy per group
    python scripts/export.py RUN output=FOLDER seconds=0  elsewhere, without timing
    python scripts/export.py RUN dataset.path=FOLDER      the data lies elsewhere now (or data_root=FOLDER)

RUN is a run's folder (train.py names it last). pt2 and onnx take uint8 images [batch, channels, height, width] of any
size and hold scaling, cutting and normalisation. Class names, groups, accuracy, hash and a note on the licence are in
every file. seconds=3 of timing for each format and batch size, threads=1. onnx and int8 need: pip install ltkd[export].
"""

import sys
from pathlib import Path

from ltkd.commands.arguments import split_arguments, whole_number
from ltkd.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    from ltkd.deploy.data import data_of_run  # here: --help needs no torch
    from ltkd.deploy.export import check_formats, export
    from ltkd.runs.load import load_run

    try:
        own, (place, *overrides) = split_arguments(arguments, ("output", "formats", "seconds", "threads"))
        formats = check_formats(own.get("formats"))
        seconds, threads = _seconds(own), whole_number(own, "threads", 1)
        run = load_run(Path(place))
        data, _ = data_of_run(run, overrides)
        folder = Path(own["output"]) if "output" in own else run.directory / "export"
        checked = export(run, data, folder, formats, seconds=seconds, threads=threads)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{(folder / 'table.md').read_text(encoding='utf-8')}\n")
    sys.stdout.write("written: " + ", ".join(str(one.path) for one in checked[1:]) + "\n")
    return 0


def _seconds(own: dict[str, str]) -> float:
    try:
        seconds = float(own.get("seconds", 3))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 600:
        raise UserError(f"seconds: should be a number from 0 to 600, got {own['seconds']!r}")
    return seconds
