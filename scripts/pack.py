"""Packs a split (images, labels, groups, manifest) into one file, so that others get exactly the same data.

python scripts/pack.py dataset=cifar100_lt dataset.imbalance_factor=100 output=cifar100_lt_if100.ltpack
python src/train.py dataset=pack dataset.path=cifar100_lt_if100.ltpack method=kd
"""

import argparse
import sys
from pathlib import Path

from ltkd.commands.script import Parser, command
from ltkd.config.compose import compose_values
from ltkd.config.load import load_config
from ltkd.data import load_data, write_pack
from ltkd.errors import UserError

PARSER = Parser(__doc__)
PARSER.add_argument("--output", type=Path, required=True, metavar="FILE.ltpack", help="the file that is written")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> None:
    output = options.output
    if output.exists():
        raise UserError(f"{output}: is there already; choose another name or remove it")
    config = load_config(compose_values(*settings))
    data = load_data(config.dataset, Path(config.data_root))
    write_pack(output, data)
    counts = (
        f"{len(data.train_labels)} training, {len(data.validation_labels)} validation, {len(data.test_labels)} test"
    )
    sys.stdout.write(f"{output}: {output.stat().st_size / 1e6:.2f} MB, {counts} images of {data.name}\n")


if __name__ == "__main__":
    sys.exit(main())
