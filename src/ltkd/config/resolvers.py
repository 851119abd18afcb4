"""Interpolations of the YAML files. Registered when this file is imported, before Hydra composes."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import OmegaConf


def choose(key: str, table: Mapping[str, Any], default: Any) -> Any:
    """${choose:KEY,{PATTERN:VALUE,...},DEFAULT}: the value of the first wildcard pattern that KEY matches.

    For settings that depend on the pair or the recipe: ${choose:${teacher.name}-${student.name},{resnet56-*:2},8}.
    """
    return next((value for pattern, value in table.items() if fnmatchcase(str(key), str(pattern))), default)


def times(factor: float, value: Any) -> Any:
    """${times:FACTOR,VALUE}: the product, to 12 significant digits, so that 0.2 times 0.05 is exactly 0.01.

    A VALUE that is no number is handed on, for the check of the configuration to name its key.
    """
    return float(f"{factor * value:.12g}") if isinstance(value, (int, float)) else value


def register() -> None:
    OmegaConf.register_new_resolver("choose", choose, replace=True)
    OmegaConf.register_new_resolver("times", times, replace=True)


register()
