"""The one error that the user is meant to read: bad input, bad files, a machine that lacks what was asked for."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Says in one message which key or file is wrong and what would be right; shown without a traceback."""


class UnknownName(UserError):
    """A name that is not among the choices: says so under a key, lists the choices, guesses what was meant."""

    def __init__(self, key: str, name: object, choices: Iterable[str]) -> None:
        choices = sorted(choices)
        close = get_close_matches(str(name), choices, n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        self._text = f"unknown name {name!r}{guess}; choose one of: {', '.join(choices)}"
        super().__init__(self.under(key))

    def under(self, key: str) -> str:
        """The message for the configuration key that the name was given for."""
        return f"{key}: {self._text}"


def unknown_name(key: str, name: object, choices: Iterable[str]) -> UserError:
    return UnknownName(key, name, choices)
