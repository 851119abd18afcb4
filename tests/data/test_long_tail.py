"""The long-tailed split against published numbers, hashes made on the real labels, and a slow second implementation."""

import random

import numpy as np
import pytest

from ltkd.data import class_counts, load_source, make_split
from ltkd.errors import UserError

SPLIT = {
    "imbalance": "exponential",
    "imbalance_factor": 100,
    "split_seed": 0,
    "validation_per_class": 0,
    "groups": "rank_thirds",
}


@pytest.fixture(scope="module")
def cifar100_labels(cifar100_root):
    return load_source("cifar100", cifar100_root, download=False).train_labels


def shuffled_labels(num_classes, per_class):
    return np.random.RandomState(7).permutation(np.repeat(np.arange(num_classes), per_class))


@pytest.mark.parametrize(
    ("n_max", "num_classes", "factor", "total"),
    [
        (500, 100, 10, 19573),
        (500, 100, 20, 15907),
        (500, 100, 50, 12608),
        (500, 100, 100, 10847),
        (5000, 10, 10, 20431),
        (5000, 10, 100, 12406),
        (500, 200, 10, 39072),
        (500, 200, 20, 31711),
        (500, 200, 100, 21549),
    ],
)
def test_exponential_totals_are_the_published_ones(n_max, num_classes, factor, total):
    assert class_counts("exponential", factor, n_max, num_classes).sum() == total


def test_counts_are_truncated():
    assert class_counts("exponential", 200, 500, 100)[-1] == 2
    assert class_counts("exponential", 256, 500, 100)[-1] == 1
    assert class_counts("step", 3, 500, 5).tolist() == [500, 500, 166, 166, 166]
    assert class_counts("none", 1, 500, 3).tolist() == [500, 500, 500]


def test_a_class_without_images_is_named_with_the_largest_factor():
    with pytest.raises(UserError, match=r"class 98 would get 0 .* factor that works is 500"):
        class_counts("exponential", 550, 500, 100)
    # 49 * (1 / 49) is below 1 in floating point: the advice must work.
    with pytest.raises(UserError, match=r"class 1 would get 0 .* factor that works is 48"):
        class_counts("step", 49, 49, 2)
    with pytest.raises(UserError, match="at least 1"):
        class_counts("exponential", 0.5, 500, 100)
    with pytest.raises(UserError, match="did you mean 'step'"):
        class_counts("steps", 2, 500, 100)


@pytest.mark.parametrize(
    ("factor", "seed", "sha256"),
    [
        (10, 0, "b4fbf1bf0a7f33381467493f50b953ce21b03a2b6d45b0d5e8da5d95d9ffd736"),
        (20, 0, "1410f105fffda31596c5af26b044a4545124854811b80ec57538a067be3420e4"),
        (50, 0, "561fa940cc7d3551d441643e310c7e439bf84f86b7863a3f7364963522d2984a"),
        (100, 0, "e0d58a4d2700c46062da852554e5d185bbee74d3c612b052ea2a839bdadf939e"),
        (100, 1, "dd2f95c4fa7086a2f7d11c518f918fad7082ccc73e66864bf1739fb206e67936"),
    ],
)
def test_cifar100_indices_are_those_of_the_papers(cifar100_labels, factor, seed, sha256):
    split = make_split(cifar100_labels, num_classes=100, **{**SPLIT, "imbalance_factor": factor, "split_seed": seed})
    assert split.sha256 == sha256
    assert np.array_equal(np.bincount(cifar100_labels[split.indices]), split.class_counts)


def test_selection_rule_by_a_slow_second_implementation():
    labels = shuffled_labels(10, 50)
    expected = []
    state = np.random.get_state()
    np.random.seed(3)  # the papers seed the global generator
    for label in range(10):
        rows = np.array([row for row, value in enumerate(labels) if value == label])
        np.random.shuffle(rows)
        expected.extend(rows[: int(50 * 0.1 ** (label / 9.0))])
    np.random.set_state(state)
    split = make_split(labels, num_classes=10, **{**SPLIT, "imbalance_factor": 10, "split_seed": 3})
    assert split.indices.tolist() == expected
    assert split.indices.dtype == split.class_counts.dtype == split.groups.dtype == np.int64


def test_global_generators_are_left_alone():
    np.random.seed(5)
    random.seed(5)
    before = np.random.get_state()[1].tolist(), random.getstate()
    make_split(shuffled_labels(10, 50), num_classes=10, **{**SPLIT, "imbalance_factor": 10, "validation_per_class": 3})
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before


@pytest.mark.parametrize(("factor", "given_up"), [(100, [20]), (10, [20, 8])])
def test_validation_takes_left_out_images_first(factor, given_up):
    labels = shuffled_labels(100, 500)
    settings = {**SPLIT, "imbalance_factor": factor}
    canonical = make_split(labels, num_classes=100, **settings)
    split = make_split(labels, num_classes=100, **{**settings, "validation_per_class": 20})

    assert split.validation_from_training.tolist() == given_up + [0] * (100 - len(given_up))
    assert (split.validation_from_left_out + split.validation_from_training == 20).all()
    assert np.array_equal(np.bincount(labels[split.validation_indices]), np.full(100, 20))
    assert np.array_equal(np.bincount(labels[split.indices]), split.class_counts)
    assert len(set(split.validation_indices)) == 2000
    assert not set(split.indices) & set(split.validation_indices)
    # Of class 0 the last of its canonical rows are gone, the others stay in order; groups are those of the full split.
    assert split.indices[:480].tolist() == canonical.indices[:480].tolist()
    assert set(split.validation_indices) & set(canonical.indices) == set(canonical.indices) - set(split.indices)
    assert np.array_equal(split.canonical_counts, canonical.class_counts)


def test_groups_do_not_move_when_validation_takes_images():
    labels = shuffled_labels(4, 110)
    split = make_split(
        labels,
        num_classes=4,
        **{**SPLIT, "imbalance_factor": 10, "validation_per_class": 20, "groups": "many_medium_few"},
    )
    assert split.class_counts.tolist() == [90, 51, 23, 11]
    assert split.groups.tolist() == [0, 1, 1, 2]


def test_without_imbalance_every_image_is_used_once():
    labels = np.repeat(np.arange(3), [5, 9, 7])
    split = make_split(labels, num_classes=3, **{**SPLIT, "imbalance": "none", "imbalance_factor": 1})
    assert sorted(split.indices) == list(range(21))
    assert split.class_counts.tolist() == [5, 9, 7]


def test_a_class_of_one_image_keeps_it_for_training(caplog):
    labels = np.repeat(np.arange(4), [5, 1, 7, 3])
    settings = {**SPLIT, "imbalance": "none", "imbalance_factor": 1, "validation_per_class": 2}
    split = make_split(labels, num_classes=4, **settings)
    assert split.class_counts.tolist() == [3, 1, 5, 1]
    assert np.bincount(labels[split.validation_indices]).tolist() == [2, 0, 2, 2]
    assert split.canonical_counts.tolist() == [5, 1, 7, 3]
    assert "1 classes have one image and none for validation: 1" in caplog.text
    with pytest.raises(UserError, match=r"validation_per_class: 3 leaves class 3 .* has 3 images\); at most 2"):
        make_split(labels, num_classes=4, **{**settings, "validation_per_class": 3})


def test_settings_that_the_data_cannot_give():
    labels = shuffled_labels(10, 50)
    with pytest.raises(UserError, match="12 classes are asked for, but the data has 10"):
        make_split(labels, num_classes=12, **SPLIT)
    with pytest.raises(UserError, match="at most 49"):
        make_split(labels, num_classes=10, **{**SPLIT, "imbalance_factor": 10, "validation_per_class": 50})
    split = make_split(labels, num_classes=10, **{**SPLIT, "imbalance_factor": 10, "validation_per_class": 49})
    assert split.class_counts.tolist() == [1] * 10
    with pytest.raises(UserError, match="class 0, which has only 5"):
        make_split(
            np.repeat(np.arange(3), [5, 9, 7]), num_classes=3, **{**SPLIT, "imbalance": "step", "imbalance_factor": 2}
        )
