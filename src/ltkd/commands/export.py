"""Exports a finished run's network for use elsewhere, checks each file against it and times it.

    python scripts/export.py RUN                          model.safetensors, .pt2 and .onnx in RUN/export
    python scripts/export.py RUN formats=onnx,int8        ONNX, and ONNX in eight bits with its accuracy per group
    python scripts/export.py RUN output=FOLDER seconds=0  elsewhere, without timing
    python scripts/export.py RUN dataset.path=FOLDER      the data lies elsewhere now (or data_root=FOLDER)

pt2 and onnx take uint8 images [batch, channels, height, width] of any size and hold scaling, cutting and normalisation.
Class names, groups, accuracy, hash and a note on the licence are in every file, and in model.json beside them. onnx and
int8 need: pip install ltkd[export].
"""

import argparse
import sys
from pathlib import Path

from ltkd.commands.script import Parser, command, number, whole_number


def _seconds(text: str) -> float:
    return number(text, 0, 600)


PARSER = Parser(__doc__)
PARSER.add_argument("run", type=Path, metavar="RUN", help="a run's folder (train.py names it last)")
PARSER.add_argument("--output", type=Path, metavar="FOLDER", help="default: RUN/export")
PARSER.add_argument("--formats", metavar="a,b", help="safetensors, pt2, onnx, int8 (default: all but int8)")
PARSER.add_argument("--seconds", type=_seconds, default=3.0, metavar="S", help="timing of each format (default: 3)")
PARSER.add_argument("--threads", type=whole_number, default=1, metavar="N", help="of the timing (default: 1)")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> None:
    from ltkd.deploy.data import data_of_run  # here: --help needs no torch
    from ltkd.deploy.export import check_formats, export
    from ltkd.runs.load import load_run

    formats = check_formats(options.formats)
    run = load_run(options.run)
    data, _ = data_of_run(run, settings)
    folder = options.output or run.directory / "export"
    checked = export(run, data, folder, formats, seconds=options.seconds, threads=options.threads)
    sys.stdout.write(f"{(folder / 'table.md').read_text(encoding='utf-8')}\n")
    sys.stdout.write("written: " + ", ".join(str(exported.path) for exported in checked[1:]) + "\n")
