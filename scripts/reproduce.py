"""Reproduces a table of conf/table/: runs what it still lacks, several runs at a time, and shows it.

    python scripts/reproduce.py table=component_ablation_cpu --dry-run    the plan: done, left, how long
    python scripts/reproduce.py table=component_ablation_cpu jobs=2
    python scripts/reproduce.py table=cifar100_lt_main jobs=4 devices=0,1 precision.autocast=bfloat16
    python scripts/reproduce.py table=cifar100_lt_main 'cell=KD*' seed=0     only these cells and that seed

jobs: runs at a time (default: one per GPU, else per CPU core); devices: the GPUs to use; cell: a cell's name as the
plan shows it, or a pattern of it; the table at the end has what else has finished too. Further settings are those of
train.py and hold for every run. A cell that fails is named at the end, does not stop the others and makes the exit code
1. Ctrl-C stops all, saved; the same command goes on.
"""

import sys
from fnmatch import fnmatch
from pathlib import Path

from ltkd.commands.arguments import split_arguments, worker_options
from ltkd.errors import UserError

MANY = 200  # cells: to check more takes a minute
CHOICE = {"cell", "seed", "split_seed"}
OWN = ("table", "jobs", "devices", *CHOICE)


def main(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    # here: --help needs no torch
    from ltkd.report import entries_of, make_report
    from ltkd.report.text import markdown
    from ltkd.sweep import exit_code, num_at_a_time, run_jobs, summary
    from ltkd.tables.plan import Plan, Speeds
    from ltkd.tables.table import compose_runs, load_table

    try:
        own, overrides = split_arguments(arguments, OWN, ("--dry-run",))
        workers = worker_options(own)
        table = load_table(own.get("table"))
        cells = [
            one for one in table.cells if own.get("cell", one.label) == one.label or fnmatch(one.label, own["cell"])
        ]
        if len(cells) > MANY:
            sys.stderr.write(f"checking {len(cells)} cells; cell=PATTERN chooses some of them\n")
        seeds = _seeds(own, "seed", table.seeds)
        split_seeds = _seeds(own, "split_seed", table.split_seeds)
        runs = [
            run for run in compose_runs(table, overrides, cells=cells)
            if run.seed in seeds and run.split_seed in split_seeds
        ]  # fmt: skip
        if not runs:
            labels = "; ".join(one.label for one in table.cells if one.overrides is not None)
            raise UserError(f"no run of the table is of that cell; its cells: {labels}")
        plan, config = Plan(table, runs), runs[0].config
        speeds = Speeds(Path(config.output_root), config.device)
        # a plan for GPUs can be read where they are not
        at_a_time = workers["num_workers"] or len(workers["devices"] or ()) or num_at_a_time()
        sys.stdout.write(f"{plan.text(speeds, at_a_time)}\n")
        if "--dry-run" in own:
            return 0
        outcomes = run_jobs(plan.jobs(), **workers) if plan.left else []
        sys.stdout.write(f"{summary(outcomes)}\n" if outcomes else "")
        entries = entries_of(plan.runs)
        if CHOICE & own.keys():
            if len(table.cells) <= MANY:
                entries += [entry for entry in entries_of(plan.other_runs(overrides)) if entry.result]
            else:
                sys.stdout.write("\nthe table below counts the chosen runs alone, whatever else has finished\n")
        sys.stdout.write(f"\n{markdown(make_report(table, entries, overrides))}\n")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("killed; the same command again goes on from the last checkpoints\n")
        return 130
    return exit_code(outcomes) or int("no data" in plan.states)


def _seeds(own: dict[str, str], key: str, of_the_table: list[int]) -> list[int]:
    """The chosen ones of the table's; UserError for one that it does not have."""
    known = {str(seed): seed for seed in of_the_table}
    asked = own[key].split(",") if key in own else list(known)
    unknown = [seed for seed in asked if seed not in known]
    if unknown:
        raise UserError(f"{key}: the table has no {', '.join(unknown)}; its {key}s: {', '.join(known)}")
    return [known[seed] for seed in asked]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
