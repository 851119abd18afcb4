"""Choices of the configuration: a name, or {name: ..., its settings}."""

from collections.abc import Mapping
from typing import Any, TypeVar

from ltkd.errors import unknown_name

T = TypeVar("T")


def name_and_settings(choice: str | Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Split a choice into its name, None where it has none, and its settings."""
    settings = {"name": choice} if isinstance(choice, str) else dict(choice)
    return settings.pop("name", None), settings


def look_up(key: str, name: Any, choices: Mapping[str, T]) -> T:
    """Return the choice of that name. UnknownName, under the configuration's key, where there is none."""
    if name not in choices:
        raise unknown_name(key, name, choices)
    return choices[name]
