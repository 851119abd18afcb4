"""Reports a table's runs: numbers, intervals and figures, as Markdown, CSV, LaTeX and one HTML page.

    python scripts/report.py table=digits_components                     outputs/report/digits_components/report.html
    python scripts/report.py table=component_ablation_cpu output=FOLDER
    python scripts/report.py table=my/own.yaml output_root=elsewhere     further settings are those of train.py

The tables are conf/table/*.yaml; `python scripts/reproduce.py table=NAME` runs what one lacks. Runs that are missing
are named, with the command for each, and make the exit code 1.
"""

import sys
from pathlib import Path

from ltkd.commands.arguments import split_arguments
from ltkd.errors import UserError


def main(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    from ltkd.report import entries_of, make_report, write_report  # here: --help needs no torch
    from ltkd.report.text import markdown
    from ltkd.tables.table import compose_runs, load_table

    try:
        own, overrides = split_arguments(arguments, ("table", "output"))
        table = load_table(own.get("table"))
        runs = compose_runs(table, overrides)
        report = make_report(table, entries_of(runs), overrides)
        folder = Path(own.get("output") or Path(runs[0].config.output_root) / "report" / table.name)
        written = write_report(report, folder)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(
        f"{markdown(report)}\nwritten: {', '.join(map(str, written[:4]))} and {len(written) - 4} figures\n"
    )
    return 1 if report.missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
