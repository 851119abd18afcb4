"""Output on consoles and into files: signs that they lack are written in ASCII, and a closed pipe ends nothing."""

import codecs
import logging
import os
import sys

PLAIN = str.maketrans({"±": "+/-", "–": "-", "—": "-", "−": "-", "×": "x", "→": "->", "…": "...", "█": "#"})


def write_plainly() -> None:
    """Lets standard output and error write 1.00 +/- 0.10 where ± cannot be encoded, and ? for what has no such sign."""
    codecs.register_error("ltkd.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not one that a test or a notebook put there
            stream.reconfigure(errors="ltkd.plain")


class Console(logging.StreamHandler):
    """Writes messages to a console, and nowhere once nobody reads them: `train.py | head` trains on."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


def _plain(error: UnicodeEncodeError) -> tuple[str, int]:
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "replace").decode(), error.end
