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


def test_rank_thirds_follow_the_counts_and_cut_no_tie():
    assert make_groups("rank_thirds", np.array([1, 2, 3]))[0].tolist() == [2, 1, 0]
    # three classes of 9, three of 5, one of 1: the cuts after ranks 2 and 5 move to the ends of the ties
    assert make_groups("rank_thirds", np.array([5, 9, 5, 1, 9, 5, 9]))[0].tolist() == [1, 0, 1, 2, 0, 1, 0]


def grouped(counts):
    groups, names = make_groups("rank_thirds", np.array(counts))
    return groups.tolist(), names


def test_step_imbalance_has_two_groups_and_balanced_data_one():
    for num_classes, n_max in ((10, 124), (100, 500), (11, 20), (2, 9)):
        counts = class_counts("step", 4, n_max, num_classes)
        half = num_classes // 2
        assert grouped(counts) == ([0] * half + [1] * (num_classes - half), ["head", "tail"])
        assert grouped(counts[::-1]) == ([1] * (num_classes - half) + [0] * half, ["head", "tail"])
        assert grouped(class_counts("none", 1, n_max, num_classes)) == ([0] * num_classes, ["balanced"])


@pytest.mark.parametrize("seed", range(20))
def test_classes_of_equal_counts_are_in_one_group_whatever_their_labels(seed):
    generator = np.random.default_rng(seed)
    counts = generator.choice([1, 2, 3, 5, 200], size=int(generator.integers(1, 30)))
    groups, names = make_groups("rank_thirds", counts)
    group_of_count = dict(zip(counts.tolist(), groups.tolist(), strict=True))
    assert [group_of_count[count] for count in counts.tolist()] == groups.tolist()
    assert sorted(set(groups.tolist())) == list(range(len(names)))
    order = generator.permutation(len(counts))
    shuffled = make_groups("rank_thirds", counts[order])[0]
    if len(set(counts.tolist())) < 4:  # few counts: surely no falling profile
        assert shuffled.tolist() == groups[order].tolist()


@pytest.mark.parametrize("num_classes", [10, 100, 200, 1000])
@pytest.mark.parametrize("factor", [2, 5, 10, 20, 50, 100, 200, 256, 500])
def test_exponential_profiles_keep_the_sizes_of_the_paper(num_classes, factor):
    """Truncation leaves ties at a cut (1,000 classes at factor 10), but such a profile has an order."""
    n_max = {10: 5000, 100: 500, 200: 500, 1000: 1280}[num_classes]
    groups, names = make_groups("rank_thirds", class_counts("exponential", factor, n_max, num_classes))
    third = 33 * num_classes // 100
    assert groups.tolist() == [0] * third + [1] * (num_classes - 2 * third) + [2] * third
    assert names == ["head", "medium", "tail"]


def test_ranges_that_cut_a_tie_are_refused():
    with pytest.raises(UserError, match=r"boundaries: 36 cuts through classes 0 \.\. 49, which all have 500 images"):
        make_groups(MISLAS, class_counts("step", 100, 500, 100))
    with pytest.raises(UserError, match=r"36 cuts through classes 0 \.\. 99"):
        make_groups(MISLAS, class_counts("none", 1, 500, 100))
    groups, _ = make_groups({"name": "ranges", "boundaries": [50]}, class_counts("step", 100, 500, 100))
    assert np.bincount(groups).tolist() == [50, 50]


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
