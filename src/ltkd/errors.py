"""The one error that the user is meant to read: bad input, bad files, a machine that lacks what was asked for."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

EXIT_BUSY = 75  # of a process that another one was before, at the same run: try again later (sysexits.h, EX_TEMPFAIL)


class UserError(ValueError):
    """Says in one message which key or file is wrong and what would be right; shown without a traceback."""


class UnknownName(UserError):
    """A name that is not among the choices; the message can be told again under another key."""

    def __init__(self, key: str, name: object, hint: str) -> None:
        self._text = f"unknown name {name!r}{hint}"
        super().__init__(self.under(key))

    def under(self, key: str) -> str:
        """The message for the configuration key that the name was given for."""
        return f"{key}: {self._text}"


def unknown_name(key: str, name: object, choices: Iterable[str]) -> UnknownName:
    """The error that lists the choices and guesses which was meant."""
    choices = sorted(choices)
    close = get_close_matches(str(name), choices, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return UnknownName(key, name, f"{guess}; choose one of: {', '.join(choices)}")


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that its section does not have; `known` are those that it has."""
    known = sorted(known)
    close = get_close_matches(key.rpartition(".")[2], known, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{key}: unknown key{guess}; known: {', '.join(known) or 'none'}"


def one_or_list(heading: str, messages: Sequence[str]) -> str:
    """One message in the heading's line; several below it, a line each."""
    if len(messages) == 1:
        return f"{heading} {messages[0]}"
    return "\n".join([heading, *(f"  {message}" for message in messages)])


def first_few(names: Sequence[object]) -> str:
    """The first three names for a message of one line, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(printable, names[:3])) + more


def printable(name: object) -> str:
    """A file's or class's name for a message of one line: line breaks and what is no text are written as escapes."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(name))
