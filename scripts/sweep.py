"""Runs a whole grid: the runs of `train.py -m`, several at a time.

    python scripts/sweep.py --jobs 4 method=ce,kd,dkd,ltkd seed=0,1,2          4 processes share the GPUs or CPU cores
    python scripts/sweep.py --jobs 8 --devices 0,1 experiment=cifar100_lt_main method=kd,ltkd 'seed=range(5)'
    python scripts/sweep.py --dry-run method=glob(*)                           what would run, checked

--jobs N: runs at a time (default: one per GPU, else per CPU core); --devices 0,1: the GPUs to use (default: all). They
can be written jobs=N and devices=0,1 too. -m has no effect: it is there so that train.py's arguments fit.
All configurations are checked before anything runs. A teacher is trained once, whoever needs it. A run that fails does
not stop the others. Ctrl-C stops all, saved; the same command again skips what is finished and resumes what is not.
"""

import sys

from ltkd.commands.arguments import split_arguments, worker_options
from ltkd.errors import UserError


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    from ltkd.sweep import check_jobs, exit_code, expand_overrides, run_sweep, summary  # here: --help needs no torch

    try:
        own, overrides = split_arguments(arguments, ("jobs", "devices"), ("--dry-run", "-m", "--multirun"))
        workers = worker_options(own)
        jobs = expand_overrides(overrides)
        if "--dry-run" in own:
            lines = [f"{job.label}  ->  {job.run.directory}" for job in check_jobs(jobs)]
            sys.stdout.write("\n".join(lines) + "\n")
            return 0
        outcomes = run_sweep(jobs, **workers)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("killed; the same command again goes on from the last checkpoints\n")
        return 130
    sys.stdout.write(f"{summary(outcomes)}\n")
    return exit_code(outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
