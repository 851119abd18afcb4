"""Intervals against known values, and how often they hold."""

import numpy as np
import pytest

from ltkd.results.statistics import paired_difference, student_t_interval, summarize


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


def test_intervals_move_and_turn_with_the_values():
    values = np.array([1.0, 2.5, 0.0, 4.0])
    low, high = student_t_interval(values)
    assert student_t_interval(values + 10) == pytest.approx((low + 10, high + 10))
    assert student_t_interval(-2 * values) == pytest.approx((-2 * high, -2 * low))
    assert student_t_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)


def test_pairing_removes_what_both_have_in_common():
    seeds = np.array([-5.0, 0.0, 5.0])  # a good seed is good for both
    difference = paired_difference(41 + seeds + [0.1, 0.0, -0.1], 40 + seeds)
    assert difference.n == 3
    assert difference.mean == pytest.approx(1.0)
    # s = 0.1, t(0.975, 2) = 4.302653
    assert difference.interval == pytest.approx((1 - 4.302653 * 0.1 / 3**0.5, 1 + 4.302653 * 0.1 / 3**0.5))


def test_less_than_two_pairs_have_no_interval():
    assert paired_difference([], []) is None
    single = paired_difference([41.0], [40.0])
    assert (single.n, single.mean, single.interval) == (1, 1.0, None)
    with pytest.raises(ValueError, match="two values or more, got 1"):
        student_t_interval([1.0])
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("n", "tables"), [(2, 1000), (5, 1000)])
def test_the_interval_holds_in_95_of_100_tables(n, tables):
    draws = np.random.default_rng(11).normal(loc=1.0, size=(tables, n))
    within = sum(low <= 1.0 <= high for low, high in map(student_t_interval, draws))
    assert 100 * within / tables == pytest.approx(95, abs=300 * (0.95 * 0.05 / tables) ** 0.5)  # three standard errors
