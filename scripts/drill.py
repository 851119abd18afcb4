"""Kills, starves, crowds and misuses the program on the embedded digits: does everything end as it should?

    python scripts/drill.py                            100 kills, all bad inputs, disks, crowds: as make drill
    python scripts/drill.py --kills 10 --inputs 10     a short one
    python scripts/drill.py --parts disks,crowds       some parts, one after the other; --seed 1: kills at other moments

Runs on a core of a CPU (--jobs 2: on two) below outputs/drill, which is emptied first. A command that was killed is
begun again until it ends, and its outputs are compared with those of an undisturbed one, bit for bit. The table is
printed and written to outputs/drill. The exit code is 1 when anything was not as it should be: what, and how to see it
again, is said below the table.
"""

import argparse
import sys
from pathlib import Path

from ltkd.commands.script import Parser, command, whole_number
from ltkd.errors import UserError

PARSER = Parser(__doc__, takes_settings=False)
PARSER.add_argument("--kills", type=whole_number, default=100, metavar="N", help="at least (default: 100)")
PARSER.add_argument("--inputs", type=whole_number, metavar="N", help="the first N bad inputs (default: all)")
PARSER.add_argument(
    "--parts", metavar="a,b", help="trainings, tables, inputs, disks, places, pair, crowds (default: all)"
)
PARSER.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments of the kills (default: 0)")
PARSER.add_argument("--jobs", type=whole_number, default=1, metavar="N", help="parts at a time (default: 1)")


@command(PARSER)
def main(options: argparse.Namespace, settings: list[str]) -> int:
    # here: --help needs no torch
    from filelock import FileLock, Timeout

    from ltkd.drill.whole import drill
    from ltkd.loop.interrupt import end_on_signals

    end_on_signals()  # so that small disks are taken away again

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    folder = Path("outputs").resolve() / "drill"
    parts = None if options.parts is None else options.parts.split(",")
    folder.parent.mkdir(exist_ok=True)
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            report = drill(
                folder, parts, kills=options.kills, inputs=options.inputs, seed=options.seed, jobs=options.jobs, say=say
            )
    except Timeout:
        raise UserError(f"{folder}: another drill is under way there") from None
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
