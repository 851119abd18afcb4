"""The command behind `python src/train.py` and `ltkd-train`: Hydra's, or the list of what there is."""

import sys

import hydra
from omegaconf import DictConfig

from ltkd.config.compose import CONFIGURATION


@hydra.main(version_base="1.3", config_path=str(CONFIGURATION), config_name="config")
def train(config: DictConfig) -> None:
    from ltkd.commands.launch import launch  # here and not above: --help and tab completion need no torch

    launch(config)


def main() -> None:
    if "--list" in sys.argv:
        from ltkd.commands.listing import show

        sys.exit(show())
    train()


if __name__ == "__main__":
    main()
