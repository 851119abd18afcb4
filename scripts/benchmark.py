"""Measures the engine, feature by feature, against a plain loop, in one run.

    python scripts/benchmark.py dataset=cifar100_lt teacher=resnet32x4 student=resnet8x4 recipe=mdistiller
    python scripts/benchmark.py dataset=cifar100_lt jobs=4 steps=50 rounds=5        quieter numbers; 4 jobs side by side
    python scripts/benchmark.py dataset=cifar100_lt --scaling                       over batch size, classes and jobs
    python scripts/benchmark.py dataset=cifar100_lt method=kd --ranks 4             one training by 1, 2 and 4 processes
    python scripts/benchmark.py dataset=tiny_imagenet_lt100 --images              files, against ImageFolder
    python scripts/benchmark.py dataset=cifar100_lt method=kd --operations          of one step, counted and not timed

The table is also written to outputs/benchmark/, with the numbers as JSON. Nothing else should run meanwhile.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ltkd.commands.script import Parser, command, whole_number

if TYPE_CHECKING:
    from ltkd.config.schema import Config

PARSER = Parser(__doc__)
PARSER.add_argument(
    "--steps",
    type=whole_number,
    default=20,
    metavar="N",
    help="in a round of the plain loop (default: 20)",
)
PARSER.add_argument("--rounds", type=whole_number, default=3, metavar="N", help="default: 3")
PARSER.add_argument("--jobs", type=whole_number, metavar="N", help="side by side (default: 4 on a GPU, else 2)")
PARSER.add_argument("--scaling", action="store_true", help="over batch size, classes and jobs")
PARSER.add_argument("--ranks", type=whole_number, metavar="N", help="one training by up to N processes")
PARSER.add_argument("--operations", action="store_true", help="count the operations of a step, which a GPU launches")
PARSER.add_argument("--images", action="store_true", help="image files, streamed, against ImageFolder + DataLoader")


@command(PARSER)
def main(options: argparse.Namespace, settings: list[str]) -> None:
    # here: --help needs no torch
    from ltkd.benchmark import (
        as_json,
        count_operations,
        markdown,
        measure,
        rank_variants,
        scaling_variants,
        standard_variants,
    )
    from ltkd.config.compose import compose_values
    from ltkd.config.load import load_config
    from ltkd.files import write_json, write_text
    from ltkd.machine import num_cores, resolve_device
    from ltkd.setup import describe, prepare

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    steps, rounds, scaling = options.steps, options.rounds, options.scaling
    config = load_config(compose_values("wandb.mode=disabled", *settings))
    if options.images:
        sys.stdout.write(f"{images(config, steps, rounds, say)}\n")
        return
    if options.operations:
        counts = count_operations(config)
        lines = [f"{count:5} {name}\n" for name, count in counts.most_common()]
        sys.stdout.write(f"{counts.total():5} operations of a step, method {config.method_name}\n{''.join(lines)}")
        return
    device = resolve_device(config.device)
    jobs = options.jobs or (4 if device.type == "cuda" else 2)
    if options.ranks:
        variants = rank_variants(options.ranks, num_cores())
    else:
        variants = (scaling_variants if scaling else standard_variants)(config, device.type == "cuda", jobs)
    setup = prepare(config)
    pair = f"{config.teacher.name} -> {config.student.name}, {config.method_name}, batch {config.recipe.batch_size}"
    say(f"{pair}; {describe(setup)}")
    root = Path(config.output_root) / "benchmark"
    name = f"{config.teacher.name}-{config.student.name}-{config.method_name}".replace("/", "_")
    name += f"-{options.ranks}-ranks" if options.ranks else "-scaling" * scaling
    scratch = root / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # a cache of an earlier call would be a head start
    try:
        rows = measure(variants, settings, steps=steps, rounds=rounds, folder=scratch, say=say)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    spread = f"1 to {options.ranks} processes" if options.ranks else f"{rows[0].jobs} to {rows[-1].jobs} jobs"
    title = f"{pair}; {spread}; {rounds} rounds, {device}"
    text = markdown(title, rows, config, setup.train.num_views, len(setup.train))
    write_text(root / f"{name}.md", text + "\n")
    write_json(root / f"{name}.json", as_json(rows, config, settings, steps, rounds))
    sys.stdout.write(f"{text}\n")


def images(config: "Config", steps: int, rounds: int, say: Callable[[str], None]) -> str:
    """Measures reading images from files and returns the table."""
    from ltkd.benchmark import images_table, measure_images
    from ltkd.files import write_json, write_text
    from ltkd.loop.precision import set_backends
    from ltkd.machine import device_name, num_cores, resolve_device

    set_backends(config.precision, config.run.threads, config.dataset.image_size)
    workers = num_cores() if config.dataset.workers == "auto" else config.dataset.workers
    root = Path(config.output_root) / "benchmark"
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_images(config, workers=workers, steps=steps, rounds=rounds, folder=Path(folder), say=say)
    name = device_name(resolve_device(config.device))
    title = f"{workers} workers, batch {config.recipe.batch_size}, {config.student.name}; {rounds} rounds, {name}"
    text = images_table(rows, title)
    write_text(root / "images.md", text + "\n")
    write_json(root / "images.json", {"title": title, "rows": [asdict(row) for row in rows]})
    return text


if __name__ == "__main__":
    sys.exit(main())
