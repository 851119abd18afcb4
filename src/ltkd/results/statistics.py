"""Mean and deviation over few runs, and paired differences with two kinds of 95 % intervals."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

CONFIDENCE = 0.95
EXACT_UP_TO = 6  # n ** n resamples are at most 46,656: all of them instead of a sample
RESAMPLES = 20_000
# How often the 95 % bootstrap interval holds the true difference when differences are normal, in %
# (tests/results/test_statistics.py measures it). At n = 2 and 3 the interval is the range of the differences seen.
COVERAGE = {2: 50, 3: 75, 4: 80, 5: 84, 6: 86, 8: 88, 10: 91, 20: 92}


@dataclass(frozen=True)
class Summary:
    """The mean over the runs of a cell; `deviation` is the sample standard deviation (n - 1), None for a single run."""

    n: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class PairedDifference:
    """Mean of first - second over n pairs. Intervals are (low, high), None for n < 2."""

    n: int
    mean: float
    bootstrap: tuple[float, float] | None
    student_t: tuple[float, float] | None


def summarize(values: Sequence[float]) -> Summary | None:
    """None where there is no value at all."""
    return Summary(len(values), mean(values), stdev(values) if len(values) > 1 else None) if values else None


def paired_difference(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> PairedDifference | None:
    """Of two methods' figures, pair by pair (same seed, hence same initial weights and order); None without a pair."""
    if len(first) != len(second):
        raise ValueError(f"pairs are needed, got {len(first)} and {len(second)} values")
    differences = np.subtract(first, second, dtype=float)
    if not len(differences):
        return None
    enough = len(differences) > 1
    return PairedDifference(
        n=len(differences),
        mean=float(differences.mean()),
        bootstrap=bootstrap_interval(differences, seed=seed) if enough else None,
        student_t=student_t_interval(differences) if enough else None,
    )


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of the mean (Efron): its quantiles over resamples of the values, with replacement.

    Up to 6 values all n ** n resamples are taken, beyond that 20,000 that `seed` draws. Few values make it too narrow:
    see COVERAGE. ValueError for fewer than two values, which say nothing about their spread.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs two values or more, got {len(values)}")
    if len(values) <= EXACT_UP_TO:
        rows = np.array(list(itertools.product(range(len(values)), repeat=len(values))))
    else:
        rows = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    tail = (1 - confidence) / 2
    # the quantiles are means that do occur, the outer ones of two: nothing is interpolated to look narrower
    means = np.sort(values[rows].mean(axis=1))
    low = np.quantile(means, tail, method="lower")
    high = np.quantile(means, 1 - tail, method="higher")
    return float(low), float(high)


def student_t_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """mean +- t * s / sqrt(n): holds at any n if the values are normal. ValueError for fewer than two values."""
    from scipy.stats import t  # here: half a second that no other command needs

    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs two values or more, got {len(values)}")
    half = t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)
