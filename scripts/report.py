"""Reports a table's runs: numbers, intervals and figures, as Markdown, CSV, LaTeX and one HTML page.

    python scripts/report.py table=digits_components                     outputs/report/digits_components/report.html
    python scripts/report.py table=component_ablation_cpu output=FOLDER
    python scripts/report.py table=my/own.yaml output_root=elsewhere
    python scripts/report.py table=cifar100_lt_cpu accuracy=corrected_once    compared by that accuracy

The tables are conf/table/*.yaml; `python scripts/reproduce.py table=NAME` runs what one lacks. Runs that are missing
are named, on the page with the command for each, and make the exit code 1. Of a table none of whose runs has finished
here, the report is that of the runs in outputs/ledger.jsonl, and says so.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ltkd.commands.script import Parser, command
from ltkd.results.read import KINDS

PARSER = Parser(__doc__)
PARSER.add_table()
PARSER.add_argument("--accuracy", choices=list(KINDS), help="compare by this accuracy (default: the table's)")
PARSER.add_argument("--output", type=Path, metavar="FOLDER", help="default: outputs/report/NAME")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> int:
    from ltkd.report import make_report, write_report  # here: --help needs no torch
    from ltkd.report.ledger import trained_or_kept
    from ltkd.report.markdown import markdown
    from ltkd.tables.file import load_table
    from ltkd.tables.table import compose_runs

    table = load_table(options.table)
    if options.accuracy:
        table = replace(table, accuracy=options.accuracy)
    runs = compose_runs(table, settings)
    entries, source = trained_or_kept(table, runs)
    report = make_report(table, entries, settings, source=source)
    folder = options.output or Path(runs[0].config.output_root) / "report" / table.name
    written = write_report(report, folder)
    sys.stdout.write(
        f"{markdown(report)}\nwritten: {', '.join(map(str, written[:4]))} and {len(written) - 4} drawings\n"
    )
    return 1 if report.missing else 0


if __name__ == "__main__":
    sys.exit(main())
