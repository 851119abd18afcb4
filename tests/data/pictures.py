"""Small real image files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, side: int = 8) -> np.ndarray:
    """Random uint8 [side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def write(path: Path, seed: int, side: int = 8) -> Path:
    """A picture in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, side)).save(path)
    return path


def write_folder(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """root/CLASS/0.png ... for each class, every picture another one."""
    for name, count in counts.items():
        for number in range(count):
            write(root / name / f"{number}.png", first)
            first += 1
    return root
