"""Exports a finished run's network for use elsewhere, checks each file against it and times it.

    python scripts/export.py RUN                          model.safetensors (+ .json), .pt2 and .onnx in RUN/export
    python scripts/export.py RUN formats=onnx,int8        ONNX, and ONNX in eight bits with its accuracy per group
    python scripts/export.py RUN output=FOLDER seconds=0  elsewhere, without timing
    python scripts/export.py RUN dataset.path=FOLDER      the data lies elsewhere now (or data_root=FOLDER)

RUN is a run's folder (train.py names it last). pt2 and onnx take uint8 images [batch, channels, height, width] of any
size and hold scaling, cutting and normalisation. Class names, groups, accuracy, hash and a note on the licence are in
every file. seconds=3 of timing for each format and batch size, threads=1. onnx and int8 need: pip install ltkd[export].
"""

import argparse
import sys
from pathlib import Path

from ltkd.commands.script import Parser, amount, command, whole_number
from ltkd.errors import UserError

PARSER = Parser(__doc__)
PARSER.epilog = "options can be written KEY=VALUE too"
PARSER.add_argument("--output", type=Path, metavar="FOLDER", help="default: RUN/export")
PARSER.add_argument("--formats", help="of safetensors, pt2, onnx, int8, with commas between (default: all but int8)")
PARSER.add_argument("--seconds", type=amount, default=3.0, help="of timing (default: 3; 0: none)")
PARSER.add_argument("--threads", type=whole_number, default=1, metavar="N", help="CPU threads (default: 1)")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, places: list[str]) -> None:
    from ltkd.deploy.data import data_of_run  # here: --help needs no torch
    from ltkd.deploy.export import check_formats, export
    from ltkd.runs.load import load_run

    formats = check_formats(options.formats)
    if not places:
        raise UserError("export: takes RUN, a run's folder")
    run = load_run(Path(places[0]))
    data, _ = data_of_run(run, places[1:])
    folder = options.output or run.directory / "export"
    checked = export(run, data, folder, formats, seconds=options.seconds, threads=options.threads)
    sys.stdout.write(f"{(folder / 'table.md').read_text(encoding='utf-8')}\n")
    sys.stdout.write("written: " + ", ".join(str(one.path) for one in checked[1:]) + "\n")
