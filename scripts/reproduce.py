"""How do I get a paper's table? Runs what a table of conf/table/ still lacks, several runs at a time, and shows it.

    python scripts/reproduce.py table=component_ablation_cpu --dry-run       the plan: what is done, what is left, how long
    python scripts/reproduce.py table=component_ablation_cpu jobs=2
    python scripts/reproduce.py table=cifar100_lt_main jobs=4 devices=0,1 precision.autocast=bfloat16
    python scripts/reproduce.py table=cifar100_lt_main 'cell=KD*' seed=0     only these cells and that seed

jobs: runs at a time (default: one per GPU, else per CPU core); devices: the GPUs to use. `cell` is a pattern for a cell's
name as the plan shows it. Further settings are those of train.py and hold for every run. A cell that fails is named at
the end, does not stop the others and makes the exit code 1. Ctrl-C stops all, saved; the same command goes on.
"""

import sys
from fnmatch import fnmatchcase
from pathlib import Path

from ltkd.errors import UserError

OWN = ("table", "jobs", "devices", "cell", "seed", "split_seed")


def main(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    from ltkd.plan import Plan, Speeds  # here: --help needs no torch
    from ltkd.report import entries_of, make_report
    from ltkd.report.text import markdown
    from ltkd.sweep import exit_code, run_jobs, summary
    from ltkd.tables import compose_runs, load_table, split_arguments

    dry_run = "--dry-run" in arguments
    try:
        own, overrides = split_arguments([one for one in arguments if one != "--dry-run"], OWN)
        num_workers, devices = _numbers(own, "jobs"), _numbers(own, "devices")
        table = load_table(own["table"])
        runs = compose_runs(table, overrides)
        plan = Plan(table, _selected(runs, own))
        config = runs[0].config
        sys.stdout.write(f"{plan.text(Speeds(Path(config.output_root), config.device))}\n")
        if dry_run:
            return 0
        outcomes = run_jobs(plan.jobs(), num_workers=num_workers[0] if num_workers else None, devices=devices)
        sys.stdout.write(f"{summary(outcomes)}\n" if outcomes else "")
        sys.stdout.write(f"\n{markdown(make_report(table, entries_of(plan.runs)))}\n")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("killed; the same command again goes on from the last checkpoints\n")
        return 130
    return exit_code(outcomes) or int("no data" in plan.states)


def _numbers(own: dict[str, str], key: str) -> list[int] | None:
    if key not in own:
        return None
    parts = own[key].split(",")
    if not all(part.isdecimal() for part in parts) or (key == "jobs" and (len(parts) > 1 or int(parts[0]) < 1)):
        raise UserError(f"{key}: should be {'a number from 1 on' if key == 'jobs' else 'like 0,1'}, got {own[key]!r}")
    return [int(part) for part in parts]


def _selected(runs: list, own: dict[str, str]) -> list:
    """The runs that `cell`, `seed` and `split_seed` ask for."""
    wanted = {key: own[key] for key in ("seed", "split_seed") if key in own}
    chosen = [
        run for run in runs
        if all(str(getattr(run, key)) == value for key, value in wanted.items())
        and fnmatchcase(run.cell.label, own.get("cell", "*"))
    ]  # fmt: skip
    if not chosen:
        cells = "; ".join(dict.fromkeys(run.cell.label for run in runs))
        raise UserError(f"no run of the table is {' '.join(f'{k}={v}' for k, v in own.items())}; its cells: {cells}")
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
