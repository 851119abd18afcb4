"""Composes conf/ and a list of overrides as Hydra would, outside of a Hydra command."""

import pickle
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

import ltkd.config.resolvers  # noqa: F401  what the YAML files interpolate with
from ltkd.errors import UserError, unknown_key, unknown_name

# src/ltkd/conf is a link to the conf/ of the checkout, so that an installed package has the files in the same place
CONFIGURATION = (Path(__file__).resolve().parents[1] / "conf").resolve()
OF_SCRIPTS = {"table": "scripts/reproduce.py and scripts/report.py", "tuning": "scripts/tune.py"}  # folders there


def compose_values(*overrides: str) -> dict[str, Any]:
    """The plain, resolved values of `python src/train.py OVERRIDES`. UserError where Hydra refuses them."""
    [values] = compose_variants(overrides, [{}])
    return values


def compose_variants(overrides: Iterable[str], variants: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`compose_values` for the overrides with each variant, {key: value}, after them: [{"seed": 0}, {"seed": 1}].

    Interpolations see the variant's values.
    """
    try:
        composed = pickle.dumps(_composed(list(overrides)))
        resolved = []
        for variant in variants:
            config = pickle.loads(composed)
            for key, value in variant.items():
                OmegaConf.update(config, key, value)
            resolved.append(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
        return resolved
    except (HydraException, OmegaConfBaseException) as error:
        raise refusal(error) from error


def _composed(overrides: list[str]) -> DictConfig:
    """Hydra's configuration of the overrides.

    Reading the files of chosen groups takes a tenth of a second, and a table or a sweep has many runs of each choice.
    So the files are read once for each, and the plain values behind them are set in a copy, as Hydra does.
    """
    parsed = parse_overrides(overrides)
    choices = [override for override in parsed if _is_choice(override)]  # Hydra takes them first
    settings = [override for override in parsed if not _is_choice(override)]
    plain = list(takewhile(_is_plain, reversed(settings)))[::-1]
    before = [*choices, *settings[: len(settings) - len(plain)]]
    config = pickle.loads(_read(CONFIGURATION, tuple(str(override.input_line) for override in before)))
    try:
        for override in plain:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:
        _read(CONFIGURATION, tuple(overrides))  # refuses it in Hydra's words
        raise
    return config


@lru_cache(maxsize=1024)
def _read(folder: Path, overrides: tuple[str, ...]) -> bytes:
    """Pickled, which is by far the fastest way to copy a configuration."""
    with initialize_config_dir(str(folder), version_base="1.3"):
        return pickle.dumps(compose("config", list(overrides)))


def _is_choice(override: Override) -> bool:
    """True for method=kd, a file of conf/."""
    return (CONFIGURATION / override.key_or_group).is_dir() and not isinstance(override.value(), dict)


def _is_plain(override: Override) -> bool:
    """True for recipe.epochs=60: another value of a key that is there."""
    special = override.package or override.is_sweep_override() or override.is_hydra_override()
    return override.type is OverrideType.CHANGE and not special


def parse_overrides(overrides: Iterable[str]) -> list[Override]:
    """The overrides as Hydra reads them, one by one.

    UserError for the first whose value Hydra cannot read, such as a path with = or ~ that is not quoted, or cannot take
    for a choice of a group, such as null.
    """
    parser, parsed = OverridesParser.create(), []
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(_without_value(override))
        try:
            parsed.append(parser.parse_override(override))
        except HydraException as error:
            raise UserError(f"{override}: {error}{_hint(override)}") from error
        _check_choice(parsed[-1])
    return parsed


def _check_choice(override: Override) -> None:
    """UserError for experiment=null or student=3, where Hydra takes a text or a list, and table=NAME."""
    if override.key_or_group in OF_SCRIPTS:
        raise UserError(f"{override.input_line}: belongs to {OF_SCRIPTS[override.key_or_group]}")
    special = override.is_delete() or override.is_sweep_override() or isinstance(override.value(), str | list)
    if _is_choice(override) and not special:
        group = override.key_or_group
        choices = sorted(file.stem for file in (CONFIGURATION / group).glob("*.yaml"))
        raise UserError(f"{override.input_line}: {group} is one of: {', '.join(choices)}")


def _hint(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals or not value or value[0] in "\"'[{":
        return ""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"; a text with = ~ , ( ) or the like stands in quotes, which the shell's own protect: '{key}=\"{quoted}\"'"


def refusal(error: HydraException | OmegaConfBaseException) -> UserError:
    """The error in one line for what cannot be composed. Unknown names and keys come with those that there are."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").partition("/")
        return unknown_name(group, name, error.options)
    if isinstance(error, HydraException) and (hint := _hint_instead(str(error))):
        return UserError(hint)
    cause = error.__cause__ if isinstance(error, HydraException) else error
    if missing := re.search(r"Missing mandatory value: (\S+)", str(cause)):
        # said by the key itself with its last part, and by what interpolates it with the whole key
        key = cause.full_key if isinstance(cause, MissingMandatoryValue) else missing[1]
        return UserError(f"{key}: missing; add {key}=...")
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        section = cause.parent_node
        if isinstance(section, DictConfig) and isinstance(error, HydraException):
            hint = f"; to add it nevertheless: +{cause.full_key}=..."
            return UserError(unknown_key(cause.full_key, [str(key) for key in section if key != "hydra"]) + hint)
        return UserError(f"{cause.full_key}: {_one_line(str(cause).partition('    full_key:')[0])}")
    return UserError(_one_line(str(error)))


def _hint_instead(message: str) -> str | None:
    """A line that says what to type, in place of two of Hydra's messages that a newcomer meets."""
    if several := re.match("Ambiguous value for argument '(.*)'\n", message):
        ways = "add -m to run each, or write a list as [a,b] and a text that has a comma in quotes"
        return f"{several[1]}: several values; {ways}"
    if word := re.match("Error parsing override '([^=']*)'\nmissing EQUAL", message):
        return _without_value(word[1])
    return None


def _without_value(word: str) -> str:
    return f"{word}: should be KEY=VALUE, such as method=kd"


def _one_line(text: str) -> str:
    return " ".join(text.split())
