"""What Hydra would compose from conf/ for a list of overrides, outside of a Hydra command."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import ltkd.resolvers  # noqa: F401  what the YAML files interpolate with
from ltkd.errors import UserError

CONFIGURATION = Path(__file__).resolve().parents[2] / "conf"


def compose_values(*overrides: str) -> dict[str, Any]:
    """The plain, resolved values of `python src/train.py OVERRIDES`. UserError where Hydra refuses them."""
    try:
        with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
            return OmegaConf.to_container(compose("config", list(overrides)), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error)) from error
