"""Composes conf/ and a list of overrides as Hydra would, outside of a Hydra command."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import ltkd.config.resolvers  # noqa: F401  what the YAML files interpolate with
from ltkd.config.overrides import check_grammar
from ltkd.errors import UserError, unknown_key, unknown_name

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
        raise refusal(error) from error


def refusal(error: HydraException | OmegaConfBaseException) -> UserError:
    """The error in one line for what cannot be composed. Unknown names and keys come with those that there are."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").partition("/")
        return unknown_name(group, name, error.options)
    cause = error.__cause__ if isinstance(error, HydraException) else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        section = cause.parent_node
        if isinstance(section, DictConfig) and isinstance(error, HydraException):
            hint = f"; to add it nevertheless: +{cause.full_key}=..."
            return UserError(unknown_key(cause.full_key, [str(key) for key in section if key != "hydra"]) + hint)
        return UserError(f"{cause.full_key}: {_one_line(str(cause).partition('    full_key:')[0])}")
    return UserError(_one_line(str(error)))


def _one_line(text: str) -> str:
    return " ".join(text.split())
