"""Class groups: the five definitions on known counts, and what a user may get wrong."""

import numpy as np
import pytest

from ltkd.data import class_counts, make_groups
from ltkd.errors import UserError

MISLAS = {"name": "ranges", "boundaries": [36, 71]}


@pytest.mark.parametrize(
    ("choice", "at_100", "at_10"),
    [
        ("rank_thirds", [33, 34, 33], [33, 34, 33]),
        ("many_medium_few", [35, 35, 30], [69, 31, 0]),
        ("oltr", [35, 34, 31], [70, 30, 0]),
        (MISLAS, [36, 35, 29], [36, 35, 29]),
    ],
)
def test_sizes_on_cifar100(choice, at_100, at_10):
    for factor, sizes in ((100, at_100), (10, at_10)):
        groups, names = make_groups(choice, class_counts("exponential", factor, 500, 100))
        assert np.bincount(groups, minlength=3).tolist() == sizes
        assert groups.dtype == np.int64
        assert (np.diff(groups) >= 0).all()
        assert names == (["head", "medium", "tail"] if choice == "rank_thirds" else ["many", "medium", "few"])


def test_images_per_rank_third():
    counts = class_counts("exponential", 100, 500, 100)
    groups, _ = make_groups("rank_thirds", counts)
    assert np.bincount(groups, weights=counts).tolist() == [8615, 1864, 368]


def test_rank_thirds_follow_the_counts_and_break_ties_by_label():
    assert make_groups("rank_thirds", np.array([5, 9, 5, 1, 9, 5, 9]))[0].tolist() == [1, 0, 1, 2, 0, 2, 1]
    assert make_groups("rank_thirds", np.array([1, 2, 3]))[0].tolist() == [2, 1, 0]
    assert make_groups("rank_thirds", np.full(10, 7))[0].tolist() == [0] * 3 + [1] * 4 + [2] * 3


def test_thresholds_differ_exactly_at_20_and_100():
    counts = np.array([101, 100, 99, 21, 20, 19])
    assert make_groups("many_medium_few", counts)[0].tolist() == [0, 1, 1, 1, 1, 2]
    assert make_groups("oltr", counts)[0].tolist() == [0, 0, 1, 1, 2, 2]


def test_own_groups():
    counts = np.array([4, 3, 2, 1])
    groups, names = make_groups(
        {"name": "mapping", "classes": {"animals": [3, 0], "none": [], "plants": [1, 2]}}, counts
    )
    assert (groups.tolist(), names) == ([0, 2, 2, 0], ["animals", "none", "plants"])
    groups, names = make_groups({"name": "ranges", "boundaries": [3]}, counts)
    assert (groups.tolist(), names) == ([0, 0, 0, 1], ["group0", "group1"])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("rank_third", "did you mean 'rank_thirds'"),
        ({"name": "oltr", "boundaries": [3]}, "oltr takes no arguments; got boundaries"),
        ("ranges", "ranges takes boundaries; got none"),
        ({"name": "ranges", "boundaries": [2, 2]}, "rise strictly between 1 and 3"),
        ({"name": "ranges", "boundaries": [4]}, "rise strictly between 1 and 3"),
        ({"name": "ranges", "boundaries": []}, "rise strictly between 1 and 3"),
        ({"name": "mapping", "classes": {"a": [0, 1], "b": [1, 2, 3]}}, "b: class 1 is already in 'a'"),
        ({"name": "mapping", "classes": {"a": [0, 1], "b": [3]}}, "class 2 is in no group"),
        ({"name": "mapping", "classes": {"a": [0, 1, 2, 3, 4]}}, "class 4 is not among 0 .. 3"),
        ({"name": "mapping", "classes": {"a": [0, 1, 2], "b": [-1]}}, "class -1 is not among 0 .. 3"),
    ],
)
def test_bad_choices(choice, message):
    with pytest.raises(UserError, match=message):
        make_groups(choice, np.array([4, 3, 2, 1]))
