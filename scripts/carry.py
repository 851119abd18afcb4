"""Carries runs from one machine to another: between a notebook, a cluster with short queues and your own computer.

    python scripts/carry.py out=FOLDER max=16MiB    the runs of outputs/ as files of at most 16 MiB each
    python scripts/carry.py in=FOLDER               into outputs/ here, where the same commands skip and resume them

Carried are results of finished runs with their metrics, weights of teachers, and checkpoints of unfinished runs; not
weights of students, nor caches of a teacher's logits. Files that are missing or damaged are named and nothing is
imported. A finished run is never replaced, and of two unfinished ones the one that is further stays. A teacher that was
trained on both machines, with other last bits, is refused: its students do not mix.
"""

import argparse
import re
import sys
from pathlib import Path

from ltkd.commands.script import Parser, command
from ltkd.errors import UserError

UNITS = {"KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def size(text: str) -> int:
    """A number of bytes from 1 on, with its unit."""
    match = re.fullmatch(r"([1-9]\d*)(\w+)", text)
    if not match or match[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"should be a size like 16MiB (units: {', '.join(UNITS)}), got {text!r}")
    return int(match[1]) * UNITS[match[2]]


PARSER = Parser(__doc__, takes_settings=False)
PARSER.add_argument("--out", type=Path, metavar="FOLDER", help="export into this folder, which must have no export yet")
PARSER.add_argument("--in", type=Path, dest="into_here", metavar="FOLDER", help="import what was exported there")
PARSER.add_argument("--max", type=size, metavar="SIZE", help="of a file, by default 16MiB", default=size("16MiB"))
PARSER.add_argument("--output_root", type=Path, metavar="FOLDER", help="default: outputs", default=Path("outputs"))


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> None:
    if (options.out is None) == (options.into_here is None):
        raise UserError("give either out=FOLDER or in=FOLDER")
    from ltkd.carry import export_runs, import_runs  # here: --help needs no torch

    if options.out is not None:
        exported = export_runs(options.output_root, options.out, options.max)
        files = [path for path in options.out.iterdir() if path.name.startswith("runs.")]
        count = f"{len(exported.finished)} finished and {len(exported.unfinished)} unfinished runs"
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        sys.stdout.write(f"{options.out}: {count} in {len(files)} files, {megabytes:.1f} MB\n")
        sys.stdout.writelines(f"left out, it is being trained: {path}\n" for path in exported.in_use)
        return
    arrived = import_runs(options.into_here, options.output_root)
    count = f"{len(arrived.finished)} finished, {len(arrived.unfinished)} to be resumed, {len(arrived.kept)} were here"
    sys.stdout.write(f"{options.output_root}: runs imported: {count}\n")


if __name__ == "__main__":
    sys.exit(main())
