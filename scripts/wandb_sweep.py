"""Writes a definition for `wandb sweep`: a grid of a table's runs.

    python scripts/wandb_sweep.py table=component_ablation_cpu              outputs/wandb/component_ablation_cpu.yaml
    wandb sweep outputs/wandb/component_ablation_cpu.yaml                    says the sweep's name
    wandb agent ENTITY/PROJECT/SWEEP                                         on as many machines as you like

Each run is `scripts/reproduce.py table=... cell=... seed=...`: agents that share outputs/ share teachers, skip what is
finished and resume what is not. The workspace shows the table when it is grouped by `cell`, the parameter, or by the
tags of the row and the column.
"""

import argparse
import sys
from pathlib import Path

import yaml

from ltkd.commands.script import Parser, command

PARSER = Parser(__doc__)
PARSER.add_table()
PARSER.add_argument("--output", type=Path, metavar="FILE.yaml", help="default: outputs/wandb/NAME.yaml")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> None:
    # here: --help needs no torch
    from ltkd.files import write_text
    from ltkd.tables.file import load_table
    from ltkd.tables.plan import wandb_sweep
    from ltkd.tables.table import compose_runs

    table = load_table(options.table)
    runs = compose_runs(table, settings)
    config = runs[0].config
    output = options.output or Path(config.output_root) / "wandb" / f"{table.name}.yaml"
    definition = wandb_sweep(table, [f"table={options.table}", "jobs=1", *settings], config.wandb)
    comment = f"# Written by: python scripts/wandb_sweep.py {options.typed}\n"
    write_text(output, comment + yaml.safe_dump(definition, sort_keys=False, allow_unicode=True, width=120))
    sys.stdout.write(f"written: {output}, {len(runs)} runs\nnext: wandb sweep {output}\n")


if __name__ == "__main__":
    sys.exit(main())
