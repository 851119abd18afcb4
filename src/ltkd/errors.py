"""The one error that the user is meant to read: bad input, bad files, a machine that lacks what was asked for."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Says in one message which key or file is wrong and what would be right; shown without a traceback."""


def unknown_name(key: str, name: object, choices: Iterable[str]) -> UserError:
    """The error for a name that is not among `choices`: names the key, lists the choices, guesses what was meant."""
    choices = sorted(choices)
    close = get_close_matches(str(name), choices, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return UserError(f"{key}: unknown name {name!r}{guess}; choose one of: {', '.join(choices)}")
