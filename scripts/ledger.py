"""Which runs are the published numbers of? Keeps their results, small, in outputs/ledger/, and writes README tables.

    python scripts/ledger.py table=digits_components            copies the results of the table's finished runs
    python scripts/ledger.py table=NAME output_root=elsewhere   further settings are those of train.py
    python scripts/ledger.py --write-readme                     makes the marked tables of README.md from the ledger
    python scripts/ledger.py --check                            exit code 1 where README.md and ledger differ

A table stands in the README between <!-- table:NAME --> and <!-- end -->; <!-- table:NAME differences --> adds the
differences to the best baseline with their intervals, <!-- table:NAME logit_adjusted --> has what that correction after
training makes of the same runs.
"""

import sys
from pathlib import Path

from ltkd.commands.arguments import split_arguments
from ltkd.errors import UserError


def main(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    try:
        own, overrides = split_arguments(arguments, ("table",), ("--write-readme", "--check"))
        if "--check" in own and len(arguments) > 1:
            raise UserError(
                "--check: writes nothing and stands alone; leave it out to put a table's runs in the ledger"
            )
        if "table" in own or overrides:
            _record(own.get("table"), overrides)
        return _readme(write="--write-readme" in own) if {"--write-readme", "--check"} & own.keys() else 0
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _record(name: str | None, overrides: list[str]) -> None:
    from ltkd.report import entries_of, make_report
    from ltkd.report.ledger import record  # here: --help needs no torch
    from ltkd.tables.table import compose_runs, load_table

    table = load_table(name)
    runs = compose_runs(table, overrides)
    entries = entries_of(runs)
    report = make_report(table, entries)  # nothing is published that could not be put into a table
    written = record(table, entries, Path(runs[0].config.output_root))
    lines = [f"{len(written)} runs of {table.name} are in the ledger", *(f"missing: {line}" for line in report.missing)]
    if any(entry.result and (entry.result["git"] or {"modified": True})["modified"] for entry in entries):
        lines.append("warning: some ran with files that differ from their commit, so it does not reproduce them")
    sys.stdout.write("\n".join(lines) + "\n")


def _readme(*, write: bool) -> int:
    from ltkd.files import write_text
    from ltkd.report.ledger import README, with_tables

    text = README.read_text(encoding="utf-8")
    made = with_tables(text)
    if made == text:
        sys.stdout.write(f"{README.name} and the ledger agree\n")
        return 0
    if write:
        write_text(README, made)
        sys.stdout.write(f"{README.name}: tables written\n")
        return 0
    sys.stdout.write(f"{README.name} and the ledger differ; python scripts/ledger.py --write-readme mends it\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
