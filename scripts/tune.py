"""Tries a grid of a method's settings and chooses by held-out validation images, never by the test set.

    python scripts/tune.py experiment=cifar100_lt_cpu method=ltkd dataset.validation_per_class=20 seed=0,1
    python scripts/tune.py experiment=cifar100_lt_cpu method=kd dataset.validation_per_class=20 \\
        method.weight=1,4,9 method.temperature=2,4 seed=0,1,2 jobs=2 output=conf/experiment/tuned_kd.yaml

What has several values is tried; where only the seed has, the grid is conf/tuning/METHOD.yaml. Other settings are those
of train.py. The choice is written as a preset with its evidence (output=FILE.yaml, by default
conf/experiment/tuned_DATASET_TEACHER_STUDENT_METHOD.yaml): python src/train.py experiment=tuned_...
jobs: runs at a time; devices: the GPUs to use. --dry-run lists the grid. Repeat the command to resume. A
file that tuning did not write is left alone unless --overwrite is given.
"""

import shlex
import sys
from pathlib import Path

from ltkd.commands.arguments import split_arguments, worker_options
from ltkd.errors import UserError


def main(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    # here: --help needs no torch
    from ltkd.config.compose import CONFIGURATION
    from ltkd.sweep import exit_code, run_jobs, summary
    from ltkd.sweep.tuning import check_output, choose, make_tuning, preset_name, write_preset

    try:
        own, overrides = split_arguments(arguments, ("output", "jobs", "devices"), ("--dry-run", "--overwrite"))
        workers = worker_options(own)
        tuning = make_tuning(overrides)
        output = Path(own.get("output", CONFIGURATION / "experiment" / f"{preset_name(tuning)}.yaml"))
        if output.suffix != ".yaml":
            raise UserError(f"output: should be a .yaml file, got {output}")
        seeds = f"{len(tuning.seeds)} seed{'s' * (len(tuning.seeds) > 1)} each"
        sys.stdout.write(f"{len(tuning.settings)} settings, {seeds}\n")
        if "--dry-run" in own:
            sys.stdout.write("".join(f"  {setting.label}\n" for setting in tuning.settings))
            return 0
        check_output(output, overwrite="--overwrite" in own)
        outcomes = run_jobs(tuning.jobs, **workers)
        if not all(outcome.complete for outcome in outcomes):
            sys.stdout.write(f"{summary(outcomes)}\nnothing is chosen before all settings have finished\n")
            return exit_code(outcomes)
        choice = choose(tuning)
        write_preset(choice, output, f"python scripts/tune.py {shlex.join(arguments)}")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("killed; the same command again goes on from the last checkpoints\n")
        return 130
    lines = "\n".join(choice.lines())
    sys.stdout.write(f"{lines}\nwritten: {output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
