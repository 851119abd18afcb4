"""The command behind `python src/train.py` and `ltkd-train`: Hydra's, or the list of what there is."""

import sys

import hydra
from omegaconf import DictConfig

from ltkd.config.compose import CONFIGURATION
from ltkd.config.overrides import check_grammar
from ltkd.console import write_plainly
from ltkd.errors import UserError


@hydra.main(version_base="1.3", config_path=str(CONFIGURATION), config_name="config")
def train(config: DictConfig) -> None:
    from ltkd.commands.launch import launch  # here and not above: --help and tab completion need no torch

    launch(config)


def main() -> None:
    write_plainly()
    if "--list" in sys.argv:
        from ltkd.commands.listing import show

        sys.exit(show())
    try:
        check_grammar(word for word in sys.argv[1:] if "=" in word and not word.startswith("-"))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    train()


if __name__ == "__main__":
    main()
