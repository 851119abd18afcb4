"""Takes the disk away: files that cannot grow, a file system that is full or not to be written to, no folder at all."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ltkd.drill.process import Ended, Running
from ltkd.drill.report import Report
from ltkd.drill.same import contents, differences
from ltkd.drill.subjects import Subject

FULL = "full disk, then room again"
NOT_WRITABLE = "outputs that cannot be written"
FILE_SIZES = (1_000, 2_000, 20_000, 200_000, 400_000)  # bytes of a file: manifest, settings, metrics, cache, state
DISK_SIZES = (100, 500, 900, 1_300, 2_000)  # KiB of a small file system


def full_disk(subject: Subject, folder: Path, report: Report) -> None:
    """The command says in one line that it cannot write; with room again it ends as if nothing had been."""
    undisturbed = folder / "undisturbed"
    Running(subject.command(undisturbed)).finish()
    expected = contents(undisturbed)
    for size in FILE_SIZES:
        outputs = folder / f"{size} bytes"
        full = Running(subject.command(outputs), file_size=size).finish()
        _compare(subject, outputs, expected, f"no file above {size} bytes", full, report)
    for size in DISK_SIZES:
        with small_disk(folder / f"{size} KiB", size) as disk:
            if disk is None:
                report.row(FULL).notes.append("a small file system cannot be mounted here, files of limited size only")
                break
            full = Running(subject.command(disk)).finish()
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            _compare(subject, disk, expected, f"a disk of {size} KiB", full, report)


def _compare(subject: Subject, outputs: Path, expected: dict[str, str], what: str, full: Ended, report: Report) -> None:
    ended = Running(subject.command(outputs)).finish()
    wrong = [] if _is_said(full) else [f"{full}"]
    wrong += [f"with room again: {ended}"] if ended.code != 0 else []
    wrong += [f"other than undisturbed: {path}" for path in differences(expected, contents(outputs))]
    report.count(FULL, f"{what}: {'; '.join(wrong)}" if wrong else None)


def not_writable(subject: Subject, folder: Path, report: Report) -> None:
    """The command says in one line that it cannot write, where its outputs should go."""
    file = folder / "a file"
    file.write_text("")
    places = {"a file": file, "a folder in a file": file / "outputs"}
    locked = folder / "read-only folder"
    locked.mkdir(mode=0o555)
    if not os.access(locked, os.W_OK):  # the superuser may write there
        places["a read-only folder"] = locked
    with small_disk(folder / "read-only disk", 1_000) as disk:
        if disk is not None:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            places["a read-only disk"] = disk
        for name, place in places.items():
            ended = Running(subject.command(place)).finish()
            report.count(NOT_WRITABLE, None if _is_said(ended) else f"{name}: {ended}")
    report.row(NOT_WRITABLE).notes.append(", ".join(places))


def _is_said(ended: Ended) -> bool:
    return ended.code == 2 and len(ended.error_lines) == 1 and ended.errors.startswith("error: ")


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path | None]:
    """A file system of that size in memory, for the time of the block; None where mounting is not allowed."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "drill", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
