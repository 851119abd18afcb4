"""Collects result.json files into one table: mean ± standard deviation over the seeds.

    python scripts/results.py outputs/main                       Markdown on the screen
    python scripts/results.py outputs/main outputs/other --csv table.csv --markdown table.md
    python scripts/results.py outputs/tuning --accuracy validation   for choosing settings
    python scripts/results.py outputs/main --accuracy logit_adjusted  the same networks, corrected after training
    python scripts/results.py outputs/main --groups many_medium_few  finished runs for other groups of classes

Failed, interrupted and missing runs are named below the table, and make the exit code 1.
"""

import argparse
import sys
from pathlib import Path

from ltkd.commands.script import Parser, command
from ltkd.errors import UserError
from ltkd.files import write_text
from ltkd.results.collect import collect
from ltkd.results.read import KINDS
from ltkd.results.regroup import regroup_by
from ltkd.results.summary import comma_separated, markdown

PARSER = Parser(__doc__, takes_settings=False)
PARSER.add_argument("folders", nargs="*", type=Path, default=[Path("outputs")], help="default: outputs")
PARSER.add_argument("--accuracy", choices=list(KINDS), default="last", help="default: last")
GROUPS = "report for these groups, as in dataset.groups: oltr, or '{name: ranges, boundaries: [36, 71]}'"
PARSER.add_argument("--groups", metavar="POLICY", help=GROUPS)
PARSER.add_argument("--csv", type=Path, metavar="FILE", help="also write the unrounded table here")
PARSER.add_argument("--markdown", type=Path, metavar="FILE", help="also write the Markdown table here")


@command(PARSER)
def main(options: argparse.Namespace, settings: list[str]) -> int:
    absent = [str(folder) for folder in options.folders if not folder.is_dir()]
    if absent:
        raise UserError(f"no such folder: {', '.join(absent)}")
    collected = collect(options.folders, regroup_by(options.groups) if options.groups else None)
    table = markdown(collected.cells, options.accuracy, collected.notes)
    sys.stdout.write(f"{table}\n")
    if options.csv:
        write_text(options.csv, comma_separated(collected.cells, options.accuracy))
    if options.markdown:
        write_text(options.markdown, f"{table}\n")
    if collected.incomplete:
        sys.stdout.write("\n" + "\n".join(["not complete:", *(f"  {line}" for line in collected.incomplete)]) + "\n")
    return 1 if collected.incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
