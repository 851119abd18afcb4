"""Mean and deviation over few runs, and paired differences with Student's 95 % interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """The mean over the runs of a cell; `deviation` is the sample standard deviation (n - 1), None for a single run."""

    n: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class PairedDifference:
    """Mean of first - second over n pairs; the 95 % interval of it is (low, high), None for n < 2."""

    n: int
    mean: float
    interval: tuple[float, float] | None


def summarize(values: Sequence[float]) -> Summary | None:
    """Returns mean and deviation; None where there is no value at all."""
    return Summary(len(values), mean(values), stdev(values) if len(values) > 1 else None) if values else None


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference | None:
    """Compares two methods pair by pair (same seed, hence same initial weights and order); None without a pair."""
    if len(first) != len(second):
        raise ValueError(f"pairs are needed, got {len(first)} and {len(second)} values")
    differences = np.subtract(first, second, dtype=float)
    if not len(differences):
        return None
    interval = student_t_interval(differences) if len(differences) > 1 else None
    return PairedDifference(len(differences), float(differences.mean()), interval)


def student_t_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns mean +- t * s / sqrt(n), exact at any n for normal values. ValueError for fewer than two values."""
    from scipy.stats import t  # here: half a second that no other command needs

    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2:
        raise ValueError(f"an interval needs two values or more, got {len(numbers)}")
    half = t.ppf((1 + confidence) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers))
    return float(numbers.mean() - half), float(numbers.mean() + half)
