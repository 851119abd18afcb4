"""Reproduces a table of conf/table/: runs what it still lacks, several runs at a time, and shows it.

    python scripts/reproduce.py table=component_ablation_cpu --dry-run    the plan: done, left, how long
    python scripts/reproduce.py table=component_ablation_cpu jobs=2
    python scripts/reproduce.py table=cifar100_lt_main jobs=4 devices=0,1 precision.autocast=bfloat16
    python scripts/reproduce.py table=cifar100_lt_main 'cell=KD*' seed=0     only these cells and that seed
    python scripts/reproduce.py table=cifar100_lt_main minutes=55 order=seed    what an hour takes, seed by seed

Settings hold for every run. The table at the end has what else has finished too. A cell that fails is named at the end,
does not stop the others and makes the exit code 1. Ctrl-C stops all, saved; the same command goes on. So does minutes=N
when the time is up: the exit code is 124 then, and order=seed has left whole columns of seeds.
"""

import argparse
import sys
from fnmatch import fnmatch
from pathlib import Path

from ltkd.commands.script import Parser, command
from ltkd.errors import UserError

MANY = 200  # cells: to check more takes a minute


PARSER = Parser(__doc__)
PARSER.add_table()
PARSER.add_workers()
PARSER.add_argument("--cell", metavar="NAME", help="only this cell, as the plan names it, or those of a pattern")
PARSER.add_argument("--seed", metavar="0,1", help="only these seeds of the table")
PARSER.add_argument("--split_seed", metavar="0,1", help="only these split seeds of the table")
PARSER.add_argument("--order", choices=["cell", "seed"], default="cell", help="all seeds of a cell first, or all cells")
PARSER.add_argument("--dry-run", action="store_true", help="show the plan and run nothing")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> int:
    # here: --help needs no torch
    from ltkd.report import entries_of, make_report
    from ltkd.report.markdown import markdown
    from ltkd.sweep import exit_code, num_at_a_time, run_jobs, summary
    from ltkd.tables.file import load_table
    from ltkd.tables.plan import Plan, Speeds
    from ltkd.tables.table import compose_runs

    table = load_table(options.table)
    cells = [cell for cell in table.cells if options.cell in (None, cell.label) or fnmatch(cell.label, options.cell)]
    if len(cells) > MANY:
        sys.stderr.write(f"checking {len(cells)} cells; cell=PATTERN chooses some of them\n")
    seeds = _seeds(options.seed, "seed", table.seeds)
    split_seeds = _seeds(options.split_seed, "split_seed", table.split_seeds)
    runs = [
        run for run in compose_runs(table, settings, cells=cells) if run.seed in seeds and run.split_seed in split_seeds
    ]
    if not runs:
        labels = "; ".join(cell.label for cell in table.cells if cell.overrides is not None)
        raise UserError(f"no run of the table is of that cell; its cells: {labels}")
    plan, config = Plan(table, runs), runs[0].config
    speeds = Speeds(Path(config.output_root), config.device)
    # a plan for GPUs can be read where they are not
    at_a_time = options.jobs or len(options.devices or ()) or num_at_a_time()
    sys.stdout.write(f"{plan.text(speeds, at_a_time)}\n")
    if options.dry_run:
        return 0
    jobs = plan.jobs(by_seed=options.order == "seed")
    workers = {"num_workers": options.jobs, "devices": options.devices, "minutes": options.minutes}
    outcomes = run_jobs(jobs, **workers) if jobs else []
    sys.stdout.write(f"{summary(outcomes)}\n" if outcomes else "")
    entries = entries_of(plan.runs)
    if (options.cell, options.seed, options.split_seed) != (None, None, None):
        if len(table.cells) <= MANY:
            entries += [entry for entry in entries_of(plan.other_runs(settings)) if entry.result]
        else:
            sys.stdout.write("\nthe table below counts the chosen runs alone, whatever else has finished\n")
    sys.stdout.write(f"\n{markdown(make_report(table, entries, settings))}\n")
    return exit_code(outcomes) or int("no data" in plan.states)


def _seeds(chosen: str | None, key: str, of_the_table: list[int]) -> list[int]:
    """The chosen ones of the table's, by default all; UserError for one that it does not have."""
    known = {str(seed): seed for seed in of_the_table}
    asked = list(known) if chosen is None else chosen.split(",")
    unknown = [seed for seed in asked if seed not in known]
    if unknown:
        raise UserError(f"{key}: the table has no {', '.join(unknown)}; its {key}s: {', '.join(known)}")
    return [known[seed] for seed in asked]


if __name__ == "__main__":
    sys.exit(main())
