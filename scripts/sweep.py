"""How do I run a whole grid at once? The runs of `train.py -m`, several at a time.

    python scripts/sweep.py --jobs 4 method=ce,kd,dkd,ltkd seed=0,1,2          4 processes share the GPUs or CPU cores
    python scripts/sweep.py --jobs 8 --devices 0,1 experiment=cifar100_lt_main method=kd,ltkd 'seed=range(5)'
    python scripts/sweep.py --dry-run method=glob(*)                           what would run, checked

All configurations are checked before anything runs. A teacher is trained once, whoever needs it. A run that fails does
not stop the others. Ctrl-C stops all, saved; the same command again skips what is finished and resumes what is not.
"""

import argparse
import sys

from ltkd.errors import UserError
from ltkd.sweep import check_jobs, exit_code, expand_overrides, run_sweep, summary
from ltkd.sweep.arguments import worker_options


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py -m: key=value,value ...")
    parser.add_argument("--jobs", metavar="N", help="runs at a time (default: one per GPU, else per CPU core)")
    parser.add_argument("--devices", metavar="0,1", help="the GPUs to use (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="check and list the runs, start none")
    parser.add_argument("-m", "--multirun", action="store_true", help="no effect: so that train.py's arguments fit")
    arguments = parser.parse_intermixed_args()
    try:
        jobs = expand_overrides(arguments.overrides)
        if arguments.dry_run:
            lines = [f"{job.label}  ->  {job.run.directory}" for job in check_jobs(jobs)]
            sys.stdout.write("\n".join(lines) + "\n")
            return 0
        outcomes = run_sweep(jobs, **worker_options(vars(arguments)))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("killed; the same command again goes on from the last checkpoints\n")
        return 130
    sys.stdout.write(f"{summary(outcomes)}\n")
    return exit_code(outcomes)


if __name__ == "__main__":
    sys.exit(main())
