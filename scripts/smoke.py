"""Tries every method on a pair and a data set: one epoch of each on a few images, the whole way.

    python scripts/smoke.py dataset=cifar100_lt teacher=wrn_40_2 student=shufflenetv1
    python scripts/smoke.py dataset=cifar100_lt images=512 methods=kd,crd,reviewkd

The images, and 100 to test on, are packed into a folder of
outputs/, where the runs go too; it is removed at the end, so that every call tries everything anew. The table stays in
outputs/smoke/. What it prints are no results: nothing is learned in one epoch.
"""

import argparse
import dataclasses
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ltkd.commands.script import Parser, command, whole_number
from ltkd.config.compose import compose_values
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.data import LongTailData, load_data, write_pack
from ltkd.files import write_text
from ltkd.loop.graph import CaptureFailed
from ltkd.loop.tracking import latest_metrics
from ltkd.methods import list_methods
from ltkd.runs.run import run_experiment

TEST_IMAGES = 100
SETTINGS = [
    "recipe.epochs=1",
    "recipe.warmup_epochs=0",
    "recipe.batch_size=32",
    "recipe.learning_rate=0.01",
    "++teacher.recipe.epochs=4",  # or its batch normalisation has seen too little to be used in evaluation
    "wandb.mode=disabled",
    "run.progress=none",
    "study=smoke",
]


PARSER = Parser(__doc__)
PARSER.add_argument("--images", type=whole_number, default=256, metavar="N", help="to train on, about (default: 256)")
PARSER.add_argument("--methods", metavar="kd,crd", help="default: all")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> int:
    logging.getLogger("ltkd").setLevel(logging.ERROR)
    config = load_config(compose_values(*SETTINGS, *settings))
    data = few_images(load_data(config.dataset, Path(config.data_root)), options.images)
    root = Path(config.output_root) / "smoke"
    root.mkdir(parents=True, exist_ok=True)
    runs = Path(tempfile.mkdtemp(prefix=".runs-", dir=root))
    pack = runs / f"{config.dataset.name}.ltpack"
    write_pack(pack, data)
    chosen = options.methods.split(",") if options.methods else list_methods()
    other_settings = [setting for setting in settings if not setting.startswith("dataset")]
    overrides = [*SETTINGS, f"output_root={runs}", *other_settings, "dataset=pack", f"dataset.path={pack}"]
    rows: list[list[str]] = []
    try:
        for name in chosen:
            rows.append(row_of(name, overrides))
            if rows[-1][2].startswith(f"FAILED: {CaptureFailed.__name__}: "):
                break  # only a new process can go on
    finally:
        shutil.rmtree(runs, ignore_errors=True)
    pair = f"{config.teacher.name} -> {config.student.name}"
    table = tabulate(rows, headers=["method", "seconds", "terms"], tablefmt="github", disable_numparse=True)
    text = f"{pair}, {data.name}: {len(data.train_labels)} training images, one epoch\n\n{table}\n"
    write_text(root / f"{config.teacher.name}-{config.student.name}.md".replace("/", "_"), text)
    sys.stdout.write(text)
    failed = [row[0] for row in rows if row[2].startswith("FAILED")]
    sys.stdout.write(
        f"\n{len(rows) - len(failed)} of {len(rows)} methods ran{': not ' + ', '.join(failed) if failed else ''}\n"
    )
    if left := chosen[len(rows) :]:
        sys.stdout.write(f"stopped: a failed capture spoils its process; go on with --methods={','.join(left)}\n")
    return 1 if failed else 0


def row_of(name: str, overrides: list[str]) -> list[str]:
    """Method, seconds, and the loss terms of the only epoch, or why it failed."""
    start = time.perf_counter()
    try:
        config = load_config(compose_values(*overrides, f"method={name}"))
        run_experiment(config)
        metrics = latest_metrics(student_run(config).directory)
        terms = {k.removeprefix("train/loss/"): v for k, v in metrics.items() if k.startswith("train/loss/")}
        outcome = ", ".join(f"{term} {value:.3g}" for term, value in terms.items())
    except Exception as error:  # noqa: BLE001  a method that fails is a row, and the others go on
        outcome = f"FAILED: {type(error).__name__}: {error}"
    return [name, f"{time.perf_counter() - start:.1f}", outcome]


def few_images(data: LongTailData, num_images: int) -> LongTailData:
    """About `num_images` of the training images, at least one of each class, each class with its share; few to test on.

    The counts say what is left, so that priors and class lists fit the images.
    """
    counts = data.split.class_counts
    wanted = np.minimum(np.maximum(np.round(counts * num_images / counts.sum()), 1).astype(int), counts)
    rows = np.concatenate([np.flatnonzero(data.train_labels == label)[:n] for label, n in enumerate(wanted)])
    test = np.linspace(0, len(data.test_labels) - 1, min(TEST_IMAGES, len(data.test_labels))).astype(int)
    return dataclasses.replace(
        data,
        split=dataclasses.replace(data.split, indices=data.split.indices[rows], class_counts=wanted),
        train_images=data.train_images[rows],
        train_labels=data.train_labels[rows],
        test_images=data.test_images[test],
        test_labels=data.test_labels[test],
        sha256={},  # of other images
    )


if __name__ == "__main__":
    sys.exit(main())
