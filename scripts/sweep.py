"""Runs a whole grid: the runs of `train.py -m`, several at a time.

    python scripts/sweep.py --jobs 4 method=ce,kd,dkd,ltkd seed=0,1,2          four share the CPU cores, or the GPUs
    python scripts/sweep.py --jobs 8 --devices 0,1 experiment=cifar100_lt_main method=kd,ltkd 'seed=range(5)'
    python scripts/sweep.py --dry-run method=glob(*)                           what would run, checked

All configurations are checked before anything runs. A teacher is trained once, whoever needs it. A run that fails does
not stop the others. Ctrl-C stops all, saved; the same command again skips what is finished and resumes what is not.
minutes=N stops all, saved, when the time is up, and says by the exit code 124 that it is not finished.
"""

import argparse
import sys

from ltkd.commands.script import Parser, command

PARSER = Parser(__doc__)
PARSER.add_workers()
PARSER.add_argument("--dry-run", action="store_true", help="check and list the runs, and run nothing")
PARSER.add_argument("-m", "--multirun", action="store_true", help="no effect: so that the arguments of train.py fit")


@command(PARSER)
def main(options: argparse.Namespace, settings: list[str]) -> int:
    from ltkd.sweep import check_jobs, exit_code, expand_overrides, run_sweep, summary  # here: --help needs no torch

    jobs = expand_overrides(settings)
    if options.dry_run:
        lines = [f"{job.label}  ->  {job.run.directory}" for job in check_jobs(jobs)]
        sys.stdout.write("\n".join(lines) + "\n")
        return 0
    outcomes = run_sweep(jobs, num_workers=options.jobs, devices=options.devices, minutes=options.minutes)
    sys.stdout.write(f"{summary(outcomes)}\n")
    return exit_code(outcomes)


if __name__ == "__main__":
    sys.exit(main())
