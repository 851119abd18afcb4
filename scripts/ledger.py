"""Keeps the results behind published numbers, small, in outputs/ledger.jsonl, and writes the tables of the pages.

    python scripts/ledger.py table=digits_components            copies the results of the table's finished runs
    python scripts/ledger.py table=NAME output_root=elsewhere
    python scripts/ledger.py --write                            makes the marked tables of the pages from the ledger
    python scripts/ledger.py --check                            exit code 1 where a page and the ledger differ

A table stands in a page between <!-- table:NAME --> and <!-- end -->; <!-- table:NAME differences --> adds the
differences to the best baseline with their intervals, <!-- table:NAME brief --> has the rows that have run and a
legend, <!-- table:NAME logit_adjusted --> has what that correction after training makes of the same runs.
"""

import argparse
import sys
from pathlib import Path

from ltkd.commands.script import Parser, command
from ltkd.errors import UserError

PARSER = Parser(__doc__)
PARSER.add_argument("--table", metavar="NAME", help="puts the finished runs of this table into the ledger")
PARSER.add_argument("--write", action="store_true", help="writes the marked tables of the pages")
PARSER.add_argument("--check", action="store_true", help="compares them and writes nothing; alone")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> int:
    if options.check and (options.table or options.write or settings):
        raise UserError("--check: writes nothing and stands alone; leave it out to put a table's runs in the ledger")
    if options.table or settings:
        _record(options.table, settings)
    return _pages(write=options.write) if options.write or options.check else 0


def _record(name: str | None, overrides: list[str]) -> None:
    from ltkd.report import entries_of, make_report
    from ltkd.report.ledger import record  # here: --help needs no torch
    from ltkd.tables.file import load_table
    from ltkd.tables.table import compose_runs

    table = load_table(name)
    runs = compose_runs(table, overrides)
    entries = entries_of(runs)
    report = make_report(table, entries)  # nothing is published that could not be put into a table
    number = record(table, entries, Path(runs[0].config.output_root))
    lines = [
        f"{number} runs of {table.name} are in the ledger",
        *(f"missing: {line}" for line in report.missing_in_short),
    ]
    if any(entry.result and (entry.result["git"] or {"modified": True})["modified"] for entry in entries):
        lines.append("warning: some ran with files that differ from their commit, so it does not reproduce them")
    sys.stdout.write("\n".join(lines) + "\n")


def _pages(*, write: bool) -> int:
    """Compare every page with the ledger, or write its tables; the exit code is 1 where one differs and stays so."""
    from ltkd.files import write_text
    from ltkd.report.ledger import PAGES, with_tables

    differ = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = with_tables(text)
        if made == text:
            sys.stdout.write(f"{page.name} and the ledger agree\n")
        elif write:
            write_text(page, made)
            sys.stdout.write(f"{page.name}: tables written\n")
        else:
            differ = 1
            sys.stdout.write(f"{page.name} and the ledger differ; python scripts/ledger.py --write mends it\n")
    return differ


if __name__ == "__main__":
    sys.exit(main())
