"""Output on consoles and into files that take no UTF-8: signs that they lack are written in ASCII."""

import codecs
import sys

PLAIN = str.maketrans({"±": "+/-", "–": "-", "—": "-", "−": "-", "×": "x", "→": "->", "…": "...", "█": "#"})


def write_plainly() -> None:
    """Lets standard output and error write 1.00 +/- 0.10 where ± cannot be encoded, and ? for what has no such sign."""
    codecs.register_error("ltkd.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not one that a test or a notebook put there
            stream.reconfigure(errors="ltkd.plain")


def _plain(error: UnicodeEncodeError) -> tuple[str, int]:
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "replace").decode(), error.end
