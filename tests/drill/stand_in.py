"""A stand-in for the program, done in fractions of a second, with the faults that the drill is there to find.

stand_in.py FAULT output_root=FOLDER: a training of ten steps, each saved. Faults, of its answer to SIGTERM and Ctrl-C:
deaf (goes on), odd (ends with 1). After a resume: forgets (its steps are others), litters (leaves its checkpoint).
stand_in.py refuses CODE LINES output_root=FOLDER: ends with that code after so many lines on standard error.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS, SECONDS = 10, 0.03


def main(fault: str, folder: Path) -> None:
    if (folder / "result.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        code = 1 if fault == "odd" else 128 + number
        signal.signal(number, signal.SIG_IGN if fault == "deaf" else lambda *_, code=code: sys.exit(code))
    (folder / "status.json").write_text(json.dumps({"status": "running", "process": os.getpid()}))
    state = folder / "state"
    steps = state.read_text().splitlines() if state.exists() else []
    is_resumed = bool(steps)
    for step in range(len(steps), STEPS):
        time.sleep(SECONDS)
        steps.append(f"{step} again" if fault == "forgets" and is_resumed else str(step))
        (folder / "new").write_text("\n".join(steps))
        (folder / "new").replace(state)
    (folder / "weights.safetensors").write_text("\n".join(steps))
    if fault == "litters" and is_resumed:
        (folder / "last.ckpt").write_text("")
    (folder / "status.json").write_text(json.dumps({"status": "finished"}))
    (folder / "result.json").write_text("{}")


def refuse(code: str, lines: str, folder: Path) -> None:
    sys.stderr.write("error: no\n" * int(lines))
    if code == "writes":
        folder.mkdir(parents=True)
        (folder / "weights.safetensors").write_text("")
    sys.exit(2 if code == "writes" else int(code))


if __name__ == "__main__":
    words = sys.argv[1:]
    outputs = Path(words.pop().removeprefix("output_root="))
    if words[0] == "refuses":
        refuse(*words[1:], outputs)
    else:
        main(words[0], outputs / "run")
