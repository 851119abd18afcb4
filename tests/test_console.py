"""A console without UTF-8 gets ASCII, one that is gone gets nothing, and neither a traceback."""

import io
import logging
import os
import sys

from ltkd.console import Console, write_plainly


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


def test_a_pipe_that_nobody_reads_ends_nothing(capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        console = Console(stream)
        for number in range(3):
            console.handle(logging.makeLogRecord({"msg": f"epoch {number}"}))
    assert capsys.readouterr().err == ""
