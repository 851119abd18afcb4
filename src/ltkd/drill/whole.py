"""The whole drill below one folder, in parts that run side by side."""

import platform
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import torch

from ltkd.drill.bad_inputs import BAD_INPUTS
from ltkd.drill.crowds import on_one_grid, two_on_one_run
from ltkd.drill.kills import Killer
from ltkd.drill.misuse import misuse
from ltkd.drill.process import stop_all
from ltkd.drill.report import Report
from ltkd.drill.storage import full_disk, not_writable
from ltkd.drill.subjects import Subject, table, training
from ltkd.errors import unknown_name
from ltkd.machine import device_name, git_state
from ltkd.results.code import commit_label

EPOCHS = 5
PARTS = ("trainings", "tables", "inputs", "disks", "places", "pair", "crowds")


def drill(
    folder: Path, chosen: Sequence[str] | None, *, kills: int, inputs: int | None, seed: int, jobs: int,
    say: Callable[[str], None],
) -> Report:  # fmt: skip
    """Carries out the chosen parts, by default all, `jobs` at a time; what `folder` had is removed first.

    kills: at least so many, a fifth of them of tables, spread over the phases. inputs: the first so many bad ones, by
    default all. seed: of the moments of the kills. The table is said, and written to drill.md and drill.json.
    """
    begun = time.monotonic()
    for name in chosen or ():
        if name not in PARTS:
            raise unknown_name("--parts", name, PARTS)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run, in_a_table = training(EPOCHS), table(folder, EPOCHS)

    def kill(subject: Subject, fifths: int) -> Callable[[Path, Report], None]:
        per_phase = -(-kills * fifths // (5 * len(subject.phases)))
        return lambda place, report: Killer(subject, place, Random(f"{seed} {subject.name}"), report).run(per_phase)

    parts: dict[str, Callable[[Path, Report], None]] = {
        "trainings": kill(run, 4),
        "tables": kill(in_a_table, 1),
        "inputs": lambda place, report: misuse(place, dict(list(BAD_INPUTS.items())[:inputs]), report),
        "disks": lambda place, report: full_disk(run, place, report),
        "places": lambda place, report: not_writable(run, place, report),
        "pair": lambda place, report: two_on_one_run(run, place, report),
        "crowds": lambda place, report: on_one_grid(place, EPOCHS, report),
    }
    reports = {name: Report(say) for name in PARTS if chosen is None or name in chosen}

    def carry_out(name: str) -> None:
        start, place = time.monotonic(), folder / name
        place.mkdir()
        parts[name](place, reports[name])
        say(f"{name}: done in {time.monotonic() - start:.0f} s")

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(carry_out, reports))
        except BaseException:  # Ctrl-C too
            stop_all()
            raise
    whole = Report(say)
    for report in reports.values():
        whole.rows |= report.rows
    about = {
        "commit": commit_label(git_state()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": device_name(torch.device("cpu")),
        "seed": seed,
        "minutes": round((time.monotonic() - begun) / 60),
    }
    whole.write(folder, about)
    say(whole.text(about))
    return whole
