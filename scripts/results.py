"""Collects result.json files into one table: mean ± standard deviation over the seeds.

    python scripts/results.py outputs/main                       Markdown on the screen
    python scripts/results.py outputs/main outputs/other --csv table.csv --markdown table.md
    python scripts/results.py outputs/tuning --accuracy validation   for choosing settings
    python scripts/results.py outputs/main --accuracy logit_adjusted  the same networks, corrected after training

Failed, interrupted and missing runs are named below the table, and make the exit code 1.
"""

import argparse
import sys
from pathlib import Path

from ltkd.errors import UserError
from ltkd.files import write_text
from ltkd.results.collect import collect, comma_separated, markdown
from ltkd.results.read import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("outputs")], help="default: outputs")
    parser.add_argument("--accuracy", choices=list(KINDS), default="last", help="which figure (default: last)")
    parser.add_argument("--csv", type=Path, help="also write the unrounded table here")
    parser.add_argument("--markdown", type=Path, help="also write the Markdown table here")
    arguments = parser.parse_args()
    try:
        absent = [str(folder) for folder in arguments.folders if not folder.is_dir()]
        if absent:
            raise UserError(f"no such folder: {', '.join(absent)}")
        found = collect(arguments.folders)
        table = markdown(found.cells, arguments.accuracy)
        sys.stdout.write(f"{table}\n")
        if arguments.csv:
            write_text(arguments.csv, comma_separated(found.cells, arguments.accuracy))
        if arguments.markdown:
            write_text(arguments.markdown, f"{table}\n")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if found.incomplete:
        sys.stdout.write("\n" + "\n".join(["not complete:", *(f"  {line}" for line in found.incomplete)]) + "\n")
    return 1 if found.incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
