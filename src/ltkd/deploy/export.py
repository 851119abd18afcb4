"""Export of a finished run: every file is written, compared with the network on the test images, timed, and told."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from ltkd.data import LongTailData
from ltkd.deploy.description import Description, describe_run
from ltkd.deploy.formats import (
    STEM,
    export_program,
    require_onnx,
    write_int8,
    write_onnx,
    write_safetensors,
    write_torch_export,
)
from ltkd.deploy.latency import BATCHES, Timing, measure
from ltkd.deploy.open import Classify, classify_with, open_network
from ltkd.deploy.served import ServedNetwork
from ltkd.errors import UserError, unknown_name
from ltkd.files import write_json, write_text
from ltkd.loop.evaluate import Evaluation, summarize
from ltkd.results.files import RunFiles
from ltkd.results.read import cell_text
from ltkd.runs.load import FinishedRun

FORMATS = ("safetensors", "pt2", "onnx")
INT8 = "int8"  # on request: it is another network
CALIBRATION_IMAGES = 512  # training images at most, as many of each class as there are
BATCH = 64
TOLERANCE = 1e-3  # of a logit: more than rounding in another order of sums makes of it


@dataclass(frozen=True)
class Checked:
    """An exported file against the network that it was made from, on all test images."""

    name: str
    path: Path
    size: int  # bytes
    largest_difference: float  # of a logit
    same_class: float  # percent of the images
    evaluation: Evaluation
    timing: Timing | None


def check_formats(text: str | None) -> list[str]:
    """The formats that `text` (a,b) names, by default all but int8. UserError for another name or a missing library."""
    chosen = list(FORMATS) if text is None else text.split(",")
    for name in chosen:
        if name not in (*FORMATS, INT8):
            raise unknown_name("formats", name, (*FORMATS, INT8))
    if {"onnx", INT8} & set(chosen):
        require_onnx()
    return chosen


def export(
    run: FinishedRun, data: LongTailData, folder: Path, formats: Sequence[str], *, seconds: float, threads: int
) -> list[Checked]:
    """Writes the formats into `folder`, with model.json, export.json and table.md; the first entry is the run itself.

    seconds: of timing for each format and batch size, 0 for none. UserError where a file other than int8 does not give
    the network's logits, or int8 no numbers: none of the files comes into the folder then.
    """
    torch.set_num_threads(threads)
    about = describe_run(run)
    network = ServedNetwork(run.model, about).eval()
    reference = all_logits(classify_with(network, "cpu"), data.test_images)
    if not np.isfinite(reference).all():
        raise UserError(f"{run.directory}: the network's logits are no finite numbers; there is nothing to export")
    with _unchecked(folder) as unchecked:
        written = write_formats(Path(unchecked), network, about, formats, data)
        logits = {name: all_logits(open_network(path).classify, data.test_images) for name, path in written.items()}
        for name in written:
            _check(name, logits[name], reference)
        files = {name: path.replace(folder / path.name) for name, path in written.items()}
    checked = []
    for name, path in {"run": run.directory, **files}.items():
        timing = measure(path, threads=threads, seconds=seconds) if seconds else None
        checked.append(compare(name, path, logits.get(name, reference), reference, data, timing))
    table = table_of(checked, data, about, threads)
    write_text(folder / f"{STEM}.json", about.to_json() + "\n")
    write_json(folder / "export.json", [_plain(file) for file in checked])
    write_text(folder / "table.md", table + "\n")
    return checked


def _unchecked(folder: Path) -> tempfile.TemporaryDirectory:
    """A place inside `folder`, which is made, for files that nobody should take yet. UserError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, prefix=".unchecked-")
    except OSError as error:
        raise UserError(f"output: {folder} is no folder that can be written to ({error.strerror})") from error


def _check(name: str, logits: np.ndarray, reference: np.ndarray) -> None:
    """UserError where a format's logits are no numbers or, but for int8, not the network's."""
    difference = float(np.abs(logits - reference).max())
    allowed = np.inf if name == INT8 else TOLERANCE * max(1.0, float(np.abs(reference).max()))
    if not (np.isfinite(difference) and difference <= allowed):
        raise UserError(
            f"formats: {name} gives other logits than the network, by up to {difference:.3g}; nothing was exported, "
            f"formats=... without {name} exports the others"
        )


def write_formats(
    folder: Path, network: ServedNetwork, about: Description, formats: Sequence[str], data: LongTailData
) -> dict[str, Path]:
    """The files by format."""
    files = {}
    if "safetensors" in formats:
        files["safetensors"] = write_safetensors(folder, network, about)
    if set(formats) - {"safetensors"}:
        program = export_program(network, about)
    if "pt2" in formats:
        files["pt2"] = write_torch_export(folder, program, about)
    if {"onnx", INT8} & set(formats):
        files["onnx"] = write_onnx(folder, program, about)
    if INT8 in formats:
        files[INT8] = write_int8(folder, files["onnx"], about, calibration_images(data))
    return files


def calibration_images(data: LongTailData) -> np.ndarray:
    """Training images, evenly over the classes: the ranges of activations are then the tail's too."""
    random = np.random.default_rng(0)
    order = random.permutation(len(data.train_labels))
    rank = np.empty(len(order), dtype=np.int64)  # of each image among those of its class
    for label in range(len(data.class_names)):
        rows = order[data.train_labels[order] == label]
        rank[rows] = np.arange(len(rows))
    chosen = np.argsort(rank, kind="stable")[:CALIBRATION_IMAGES]
    return np.ascontiguousarray(data.train_images[np.sort(chosen)])


def all_logits(classify: Classify, images: np.ndarray) -> np.ndarray:
    """Logits [N, C] of uint8 images [N, ...], batch by batch."""
    parts = (np.ascontiguousarray(images[start : start + BATCH]) for start in range(0, len(images), BATCH))
    return np.concatenate([classify(part) for part in parts])


def compare(
    name: str, path: Path, logits: np.ndarray, reference: np.ndarray, data: LongTailData, timing: Timing | None
) -> Checked:
    """The figures of one format's logits [N, C] on the test part."""
    size = path.stat().st_size if path.is_file() else RunFiles(path).weights.stat().st_size
    return Checked(
        name,
        path,
        size,
        largest_difference=float(np.abs(logits - reference).max()),
        same_class=100 * float((logits.argmax(1) == reference.argmax(1)).mean()),
        evaluation=summarize(torch.from_numpy(logits), torch.from_numpy(data.test_labels), data.split),
        timing=timing,
    )


def table_of(checked: Sequence[Checked], data: LongTailData, about: Description, threads: int) -> str:
    """One row for each format, as Markdown, and what its columns mean."""
    groups = data.split.group_names
    timed = checked[0].timing is not None
    headers = ["format", "largest difference", "same class, %", "all, %", *(f"{group}, %" for group in groups), "MB"]
    if timed:
        headers += [f"batch {batch} {what}, ms" for batch in BATCHES for what in ("p50", "p99")] + ["memory, MB"]
    rows = []
    for file in checked:
        row = [file.name, f"{file.largest_difference:.1e}", f"{file.same_class:.2f}", f"{file.evaluation.all:.2f}"]
        row += [cell_text(file.evaluation.per_group[group], None) for group in groups] + [f"{file.size / 1e6:.2f}"]
        if file.timing is not None:
            times = [f"{by_batch[batch]:.2f}" for batch in BATCHES for by_batch in (file.timing.p50, file.timing.p99)]
            row += [*times, f"{file.timing.peak_memory / 1e6:.0f}"]
        rows.append(row)
    notes = (
        f"{about.architecture['name']}, {about.dataset}, run {about.hash}: logits and accuracy on the "
        f"{len(data.test_labels)} test images, against the network in float32 (`run`)."
    )
    if timed:
        notes += (
            f" Times of uint8 images of {about.image_size} pixels a side on {threads} CPU thread(s), beside whatever "
            "else the machine does; memory is the peak of a process that loads library and file and runs both batches."
        )
        fewest = min(min(file.timing.calls.values()) for file in checked if file.timing is not None)
        if fewest < 100:
            notes += f" p99 of as few as {fewest} calls is about the slowest of them; seconds=60 gives more."
    return f"{tabulate(rows, headers=headers, tablefmt='github', disable_numparse=True)}\n\n{notes}"


def _plain(file: Checked) -> dict[str, Any]:
    return asdict(file) | {"path": str(file.path)}
