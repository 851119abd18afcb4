"""Time and memory of one network in a process of its own: `python -m ltkd.deploy.latency FILE THREADS SECONDS`.

A fresh process, so that the peak of memory is that of the library, the file and the largest batch, and nothing else's.
"""

import json
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltkd.errors import UserError

BATCHES = (1, 64)
WARM_UP = 3  # calls that are not timed
LEAST = 20  # timed calls of a batch size, however long they take


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a call by batch size (median, 99th percentile) and the process's peak of memory in bytes."""

    p50: dict[int, float]
    p99: dict[int, float]
    calls: dict[int, int]
    peak_memory: int


def measure(path: Path, *, threads: int, seconds: float = 3.0) -> Timing:
    """Times the network at `path` (a run's folder or an exported file) on the CPU, `seconds` for each batch size."""
    command = [sys.executable, "-m", "ltkd.deploy.latency", str(path), str(threads), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{path}: could not be timed ({done.stderr.strip().splitlines()[-1:] or done.returncode})")
    measured = json.loads(done.stdout.splitlines()[-1])
    by_batch = {key: {int(batch): value for batch, value in measured[key].items()} for key in ("p50", "p99", "calls")}
    return Timing(**by_batch, peak_memory=measured["peak_memory"])


def time_calls(classify, shape: tuple[int, int, int], seconds: float) -> dict[str, dict[int, float]]:
    """p50, p99 (milliseconds) and calls, each by batch size."""
    random, measured = np.random.default_rng(0), {"p50": {}, "p99": {}, "calls": {}}
    for batch in BATCHES:
        images = random.integers(0, 256, (batch, *shape), np.uint8)
        for _ in range(WARM_UP):
            classify(images)
        took, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or len(took) < LEAST:
            start = time.perf_counter()
            classify(images)
            took.append(1000 * (time.perf_counter() - start))
        measured["p50"][batch], measured["p99"][batch] = np.percentile(took, [50, 99]).tolist()
        measured["calls"][batch] = len(took)
    return measured


def _classifier(path: Path, threads: int):
    """The function to time, and the shape of an image. Of an ONNX file without torch, as it would be deployed."""
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        about = json.loads(session.get_modelmeta().custom_metadata_map["ltkd"])
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: images}), about["channels"], about["image_size"]
    import torch

    from ltkd.deploy.open import open_network

    torch.set_num_threads(threads)
    network = open_network(path)
    return network.classify, network.about.channels, network.about.image_size


def _main(path: str, threads: str, seconds: str) -> None:
    classify, channels, size = _classifier(Path(path), int(threads))
    measured = time_calls(classify, (channels, size, size), float(seconds))
    sys.stdout.write(json.dumps(measured | {"peak_memory": peak_memory()}) + "\n")


def peak_memory() -> int:
    """Bytes of this process. On Linux not from getrusage, which counts the process that started this one too."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"^VmHWM:\s+(\d+)", status.read_text(), re.MULTILINE)[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    _main(*sys.argv[1:])
