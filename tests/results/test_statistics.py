"""Intervals against known values, a slow reference written from the definition, and how often they hold."""

import itertools
import random

import numpy as np
import pytest

from ltkd.results.statistics import (
    COVERAGE,
    EXACT_UP_TO,
    bootstrap_interval,
    paired_difference,
    student_t_interval,
    summarize,
)


def test_summary_of_known_values():
    assert summarize([]) is None
    assert summarize([40.0]).deviation is None
    summary = summarize([40.0, 41.0, 45.0])
    assert (summary.n, summary.mean) == (3, 42.0)
    assert summary.deviation == pytest.approx(7**0.5)


def test_student_t_interval_of_known_values():
    # mean 3, s = sqrt(2.5), t(0.975, 4) = 2.776445 from a printed table
    low, high = student_t_interval([1, 2, 3, 4, 5])
    assert (low, high) == pytest.approx((3 - 2.776445 * (2.5 / 5) ** 0.5, 3 + 2.776445 * (2.5 / 5) ** 0.5), abs=1e-5)
    # one degree of freedom: t(0.975, 1) = 12.7062
    assert student_t_interval([0, 2])[1] == pytest.approx(1 + 12.7062, abs=1e-3)


def slow_bootstrap(values):
    """All resamples one by one, in rational counting: the smallest interval of means that leaves 2.5 % on a side."""
    n = len(values)
    means = sorted(sum(resample) / n for resample in itertools.product(values, repeat=n))
    index = int(0.025 * (len(means) - 1))  # rounded outwards
    return means[index], means[len(means) - 1 - index]


@pytest.mark.parametrize("values", [[1.0, 3.0], [0.5, -1.0, 2.0], [3.0, 1.0, 4.0, 1.5], [2.0, 7.0, 1.0, 8.0, 2.5]])
def test_few_values_give_the_exact_bootstrap(values):
    assert bootstrap_interval(values) == pytest.approx(slow_bootstrap(values))
    if len(values) <= 3:
        assert bootstrap_interval(values) == (min(values), max(values))


def test_many_values_give_the_bootstrap_of_a_slow_loop():
    values = np.random.default_rng(3).normal(size=EXACT_UP_TO + 6).tolist()
    generator = random.Random(5)
    means = sorted(sum(generator.choices(values, k=len(values))) / len(values) for _ in range(20_000))
    expected = means[500], means[-501]
    assert bootstrap_interval(values) == pytest.approx(expected, abs=0.03)  # two independent samples of resamples
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)


def test_intervals_move_and_turn_with_the_values():
    values = np.array([1.0, 2.5, 0.0, 4.0])
    for interval in (bootstrap_interval, student_t_interval):
        low, high = interval(values)
        assert interval(values + 10) == pytest.approx((low + 10, high + 10))
        assert interval(-2 * values) == pytest.approx((-2 * high, -2 * low))
        assert interval([3.0, 3.0, 3.0]) == (3.0, 3.0)


def test_pairing_removes_what_both_have_in_common():
    seeds = np.array([-5.0, 0.0, 5.0])  # a good seed is good for both
    difference = paired_difference(41 + seeds + [0.1, 0.0, -0.1], 40 + seeds)
    assert difference.n == 3
    assert difference.mean == pytest.approx(1.0)
    assert difference.bootstrap == pytest.approx((0.9, 1.1))
    back = paired_difference(40 + seeds, 41 + seeds + [0.1, 0.0, -0.1])
    assert back.bootstrap == pytest.approx((-1.1, -0.9))


def test_less_than_two_pairs_have_no_interval():
    assert paired_difference([], []) is None
    single = paired_difference([41.0], [40.0])
    assert (single.n, single.mean, single.bootstrap, single.student_t) == (1, 1.0, None, None)
    for interval in (bootstrap_interval, student_t_interval):
        with pytest.raises(ValueError, match="two values or more, got 1"):
            interval([1.0])
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("n", "tables"), [(2, 3000), (3, 3000), (5, 1000), (8, 300)])
def test_how_often_the_intervals_hold(n, tables):
    """Coverage on normal differences: Student's is 95 %, the bootstrap's is what COVERAGE tells the reader."""
    draws = np.random.default_rng(11).normal(loc=1.0, size=(tables, n))
    within = dict.fromkeys((bootstrap_interval, student_t_interval), 0)
    for values in draws:
        for interval in within:
            low, high = interval(values)
            within[interval] += low <= 1.0 <= high
    margin = 300 * (0.5 * 0.5 / tables) ** 0.5  # three standard errors at worst, in points
    assert 100 * within[bootstrap_interval] / tables == pytest.approx(COVERAGE[n], abs=margin)
    assert 100 * within[student_t_interval] / tables == pytest.approx(95, abs=margin)
