"""Overrides that Hydra's grammar does not take, told with the way to write them."""

from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ltkd.errors import UserError


def check_grammar(overrides: Iterable[str]) -> None:
    """UserError for the first override whose value Hydra cannot read, such as a path with = or ~ that is not quoted."""
    for override in overrides:
        try:
            OverridesParser.create().parse_override(override)
        except HydraException as error:
            raise UserError(f"{override}: {error}{_hint(override)}") from error


def _hint(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals or not value or value[0] in "\"'[{":
        return ""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"; a text with = ~ , ( ) or the like stands in quotes, which the shell's own protect: '{key}=\"{quoted}\"'"
