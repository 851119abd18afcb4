"""Tries a grid of a method's settings and chooses by held-out validation images, never by the test set.

    python scripts/tune.py experiment=cifar100_lt_cpu method=ltkd dataset.validation_per_class=20 seed=0,1
    python scripts/tune.py experiment=cifar100_lt_cpu method=kd dataset.validation_per_class=20 \\
        method.weight=1,4,9 method.temperature=2,4 seed=0,1,2 jobs=2 output=conf/experiment/tuned_kd.yaml

What has several values is tried; where only the seed has, the grid is conf/tuning/METHOD.yaml. The choice
is written as a preset with its evidence, by default conf/experiment/tuned_DATASET_TEACHER_STUDENT_METHOD.yaml, for
python src/train.py experiment=tuned_... Repeat the command to resume.
"""

import argparse
import sys
from pathlib import Path

from ltkd.commands.script import Parser, command
from ltkd.errors import UserError

PARSER = Parser(__doc__)
PARSER.add_workers()
PARSER.add_argument("--output", type=Path, metavar="FILE.yaml", help="the preset that is written")
PARSER.add_argument("--overwrite", action="store_true", help="write over a file that is there")
PARSER.add_argument("--dry-run", action="store_true", help="list the grid and run nothing")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> int:
    # here: --help needs no torch
    from ltkd.config.compose import CONFIGURATION
    from ltkd.files import write_text
    from ltkd.sweep import exit_code, run_jobs, summary
    from ltkd.sweep.tuning import choose, make_tuning, preset_name, preset_text

    tuning = make_tuning(settings)
    output = options.output or CONFIGURATION / "experiment" / f"{preset_name(tuning)}.yaml"
    if output.suffix != ".yaml":
        raise UserError(f"output: should be a .yaml file, got {output}")
    seeds = f"{len(tuning.seeds)} seed{'s' * (len(tuning.seeds) > 1)} each"
    sys.stdout.write(f"{len(tuning.settings)} settings, {seeds}\n")
    if options.dry_run:
        sys.stdout.write("".join(f"  {setting.label}\n" for setting in tuning.settings))
        return 0
    if output.exists() and not options.overwrite:
        raise UserError(f"output: {output} is there already; add --overwrite or name another file")
    outcomes = run_jobs(tuning.jobs, num_workers=options.jobs, devices=options.devices, minutes=options.minutes)
    if not all(outcome.complete for outcome in outcomes):
        sys.stdout.write(f"{summary(outcomes)}\nnothing is chosen before all settings have finished\n")
        return exit_code(outcomes)
    result = choose(tuning)
    write_text(output, preset_text(result, output.stem, f"python scripts/tune.py {options.typed}"))
    lines = "\n".join(result.lines())
    sys.stdout.write(f"{lines}\nwritten: {output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
