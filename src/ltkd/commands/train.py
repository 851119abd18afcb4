"""The command behind `python src/train.py` and `ltkd-train`: Hydra's, or the list of what there is."""

import os
import sys

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ltkd.config.compose import CONFIGURATION, parse_overrides, refusal
from ltkd.console import write_plainly
from ltkd.errors import UserError
from ltkd.ranks import Ranks


@hydra.main(version_base="1.3", config_path=str(CONFIGURATION), config_name="config")
def train(config: DictConfig) -> None:
    from ltkd.commands.launch import launch  # here and not above: --help and tab completion need no torch

    launch(config)


def main() -> None:
    write_plainly()
    if "--list" in sys.argv:
        from ltkd.commands.listing import show

        sys.exit(show())
    ranks = Ranks()
    try:
        ranks = Ranks.from_environment()
        if not ranks.alone and {"-m", "--multirun"} & set(sys.argv):
            raise UserError("--multirun: several processes train one run; start a sweep by itself, without torchrun")
        settings = [word for word in sys.argv[1:] if "=" in word]
        parse_overrides(word for word in settings if not word.startswith("-"))
        for word in settings:
            if word.startswith("--") and not word.startswith(("--config-", "--cfg", "--info", "--package")):
                raise UserError(f"{word}: settings have no dashes before them: {word.lstrip('-')}")
        _run()
    except UserError as error:
        if ranks.is_first:
            sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def _run() -> None:
    """Has Hydra compose and run, and raises what it refuses as one line instead of its own pages of text."""
    if os.environ.get("HYDRA_FULL_ERROR"):  # who asks for it gets Hydra's traceback
        return train()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors
    try:
        train()
    except (HydraException, OmegaConfBaseException) as error:
        raise refusal(error) from error
    except UserError:  # of a job of a multirun, and logged when it ended
        sys.exit(1)
    except OSError as error:  # Hydra makes the folder of a multirun before any job has begun
        if error.filename is None:
            raise
        raise UserError(f"{error.filename}: {error.strerror}; choose another output_root") from error


if __name__ == "__main__":
    main()
