"""Reduces the outputs of runs to what must be the same whatever interrupted them: all but times and places."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ltkd.files import PARTIAL, file_sha256
from ltkd.results.files import RunFiles

LEFT_OUT = {  # times, a place, and the commit, which changes where somebody works meanwhile
    "wall_seconds",
    "train_seconds",
    "images_per_second",
    "finished",
    "directory",
    "git",
}


def contents(root: Path) -> dict[str, str]:
    """The hash of each file that counts, by its path below `root`, and every file that should not be there.

    A cache of logits counts when it is complete: one that is filled on the way lacks what an epoch that was stopped had
    not stored yet, which is computed when it is needed again.
    """
    fingerprints = {}
    for files in RunFiles.below(root):
        caches = [about.with_name("logits.bin") for about in files.logits.glob("*/about.json") if is_complete(about)]
        for path in (files.weights, files.selected, *caches):
            if path.exists():
                fingerprints[path] = file_sha256(path)
        for path in (files.metrics, files.retraining.metrics):
            if path.exists():
                fingerprints[path] = _hash([json.loads(line) for line in path.read_text().splitlines()])
        if files.result.exists():
            fingerprints[files.result] = _hash(json.loads(files.result.read_text()))
        fingerprints[files.status] = json.loads(files.status.read_text())["status"]
        leftovers = [files.checkpoint, files.retraining.checkpoint, files.sessions, *files.folder.rglob(f"*{PARTIAL}")]
        fingerprints |= {path: "left behind" for path in leftovers if path.exists()}
    return {str(path.relative_to(root)): value for path, value in fingerprints.items()}


def is_complete(about: Path) -> bool:
    """True for a cache of logits that holds those of all views, by its about.json."""
    return json.loads(about.read_text())["complete"]


def differences(expected: dict[str, str], got: dict[str, str]) -> list[str]:
    """The paths at which they differ."""
    return sorted(path for path in expected.keys() | got.keys() if expected.get(path) != got.get(path))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(_without_times(value), sort_keys=True).encode()).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(entry) for key, entry in value.items() if key not in LEFT_OUT}
    return [_without_times(entry) for entry in value] if isinstance(value, list) else value
