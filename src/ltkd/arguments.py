"""Key=value arguments that a script takes for itself; the others are overrides."""

from collections.abc import Iterable, Mapping
from typing import Any

from ltkd.errors import UserError


def split_own(arguments: Iterable[str], own: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The values of the script's `own` keys (of a flag such as --dry-run: ""), and the overrides."""
    values, overrides = {}, []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in own:
            values[key] = value
        else:
            overrides.append(argument)
    return values, overrides


def worker_options(own: Mapping[str, str]) -> dict[str, Any]:
    """`jobs` and `devices` as run_sweep's num_workers and devices; None where they are not given."""
    jobs, devices = _numbers(own, "jobs"), _numbers(own, "devices")
    if jobs is not None and (len(jobs) > 1 or jobs[0] < 1):
        raise UserError(f"jobs: should be a number from 1 on, got {own['jobs']!r}")
    return {"num_workers": jobs[0] if jobs else None, "devices": devices}


def _numbers(own: Mapping[str, str], key: str) -> list[int] | None:
    if own.get(key) is None:
        return None
    parts = own[key].split(",")
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"{key}: should be {'a number' if key == 'jobs' else 'numbers like 0,1'}, got {own[key]!r}")
    return [int(part) for part in parts]
