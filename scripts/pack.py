"""Packs a split (images, labels, groups, manifest) into one file, so that others get exactly the same data.

python scripts/pack.py dataset=cifar100_lt dataset.imbalance_factor=100 output=cifar100_lt_if100.ltpack
python src/train.py dataset=pack dataset.path=cifar100_lt_if100.ltpack method=kd
"""

import sys
from pathlib import Path

from ltkd.config.compose import compose_values
from ltkd.config.load import load_config
from ltkd.data import load_data, write_pack
from ltkd.errors import UserError


def main(overrides: list[str]) -> int:
    overrides = [f"+{override}" if override.startswith("output=") else override for override in overrides]
    if not overrides or {"-h", "--help"} & set(overrides):
        sys.stdout.write(__doc__)
        return 0
    try:
        values = compose_values(*overrides)
        output = values.pop("output", None)
        if not output:
            raise UserError("output: missing; add output=FILE.ltpack")
        if Path(output).exists():
            raise UserError(f"{output}: is there already; choose another name or remove it")
        config = load_config(values)
        data = load_data(config.dataset, Path(config.data_root))
        write_pack(Path(output), data)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    counts = (
        f"{len(data.train_labels)} training, {len(data.validation_labels)} validation, {len(data.test_labels)} test"
    )
    sys.stdout.write(f"{output}: {Path(output).stat().st_size / 1e6:.2f} MB, {counts} images of {data.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
