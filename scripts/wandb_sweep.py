"""Writes a definition for `wandb sweep`: a grid of a table's runs.

    python scripts/wandb_sweep.py table=component_ablation_cpu              outputs/wandb/component_ablation_cpu.yaml
    wandb sweep outputs/wandb/component_ablation_cpu.yaml                    says the sweep's name
    wandb agent ENTITY/PROJECT/SWEEP                                         on as many machines as you like

Each run is `scripts/reproduce.py table=... cell=... seed=...`: agents that share outputs/ share teachers, skip what is
finished and resume what is not. The workspace shows the table when it is grouped by `cell`, the parameter, or by the
tags of the row and the column. Further settings are those of train.py; output=FILE for another place.
"""

import shlex
import sys
from pathlib import Path

import yaml

from ltkd.commands.arguments import split_arguments
from ltkd.errors import UserError


def main(arguments: list[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    # here: --help needs no torch
    from ltkd.files import write_text
    from ltkd.tables.plan import wandb_sweep
    from ltkd.tables.table import compose_runs, load_table

    try:
        own, overrides = split_arguments(arguments, ("table", "output"))
        table = load_table(own.get("table"))
        runs = compose_runs(table, overrides)
        config = runs[0].config
        output = Path(own.get("output") or Path(config.output_root) / "wandb" / f"{table.name}.yaml")
        definition = wandb_sweep(table, [f"table={own['table']}", "jobs=1", *overrides], config.wandb)
        comment = f"# Written by: python scripts/wandb_sweep.py {shlex.join(arguments)}\n"
        write_text(output, comment + yaml.safe_dump(definition, sort_keys=False, allow_unicode=True, width=120))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"written: {output}, {len(runs)} runs\nnext: wandb sweep {output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
