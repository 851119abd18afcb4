"""Splits a script's own arguments from the overrides, which are those of train.py."""

from collections.abc import Iterable, Mapping
from typing import Any

from ltkd.errors import UserError, unknown_name


def split_arguments(
    arguments: Iterable[str], own: Iterable[str], flags: Iterable[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """The values of the script's `own` keys and its `flags` (value ""), and the overrides.

    jobs=2, --jobs=2 and --jobs 2 are the same. UserError for an own key without a value and for an unknown option.
    """
    own, flags = list(own), list(flags)
    values, overrides = {}, []
    arguments = iter(arguments)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        key = name.removeprefix("--")
        if argument in flags:
            values[argument] = ""
        elif key in own:
            if not equals and name != key:
                value = next(arguments, "")
            if not value or value.startswith("--"):
                raise UserError(f"{key}: has no value; write {key}=VALUE")
            values[key] = value
        elif argument.startswith("-"):
            raise unknown_name("option", name, [*flags, *(f"--{one}" for one in own)])
        else:
            overrides.append(argument)
    return values, overrides


def worker_options(own: Mapping[str, str]) -> dict[str, Any]:
    """`jobs` and `devices` as run_sweep's num_workers and devices; None where they are not given."""
    return {"num_workers": whole_number(own, "jobs"), "devices": _numbers(own, "devices")}


def whole_number(own: Mapping[str, str], key: str, default: int | None = None) -> int | None:
    """The value of an own key that counts something; UserError unless it is 1 or more."""
    if key not in own:
        return default
    if not own[key].isdecimal() or int(own[key]) < 1:
        raise UserError(f"{key}: should be a whole number from 1 on, got {own[key]!r}")
    return int(own[key])


def _numbers(own: Mapping[str, str], key: str) -> list[int] | None:
    if key not in own:
        return None
    parts = own[key].split(",")
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"{key}: should be numbers like 0,1, got {own[key]!r}")
    return [int(part) for part in parts]
