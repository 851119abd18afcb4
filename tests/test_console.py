"""A console without UTF-8 gets ASCII, and no traceback."""

import io
import sys

from ltkd.console import write_plainly


def test_signs_that_cannot_be_encoded_are_written_plainly(monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for encoding in ("ascii", "latin-1", "utf-8")]
    for stream in streams:
        monkeypatch.setattr(sys, "stdout", stream)
        write_plainly()
        stream.write("42.00 ± 0.10 – ü → 終")
        stream.flush()
    written = [stream.buffer.getvalue() for stream in streams]
    assert written[0] == b"42.00 +/- 0.10 - ? -> ?"
    assert written[1] == "42.00 ± 0.10 - ü -> ?".encode("latin-1")
    assert written[2] == "42.00 ± 0.10 – ü → 終".encode()
