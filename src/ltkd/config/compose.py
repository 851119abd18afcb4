"""Composes conf/ and a list of overrides as Hydra would, outside of a Hydra command."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import ltkd.config.resolvers  # noqa: F401  what the YAML files interpolate with
from ltkd.config.overrides import check_grammar
from ltkd.errors import UserError

# src/ltkd/conf is a link to the conf/ of the checkout, so that an installed package has the files in the same place
CONFIGURATION = (Path(__file__).resolve().parents[1] / "conf").resolve()


def compose_values(*overrides: str) -> dict[str, Any]:
    """The plain, resolved values of `python src/train.py OVERRIDES`. UserError where Hydra refuses them."""
    [values] = compose_variants(overrides, [{}])
    return values


def compose_variants(overrides: Iterable[str], variants: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`compose_values` for the overrides with each variant, {key: value}, after them: [{"seed": 0}, {"seed": 1}].

    The files are read once, which is what takes the time; interpolations see the variant's values.
    """
    overrides = list(overrides)
    check_grammar(overrides)
    try:
        with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
            composed = compose("config", overrides)
        resolved = []
        for variant in variants:
            config = copy.deepcopy(composed)
            for key, value in variant.items():
                OmegaConf.update(config, key, value)
            resolved.append(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
        return resolved
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error)) from error
