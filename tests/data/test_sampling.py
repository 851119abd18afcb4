"""Which images an epoch shows: exact counts, distributions, determinism."""

import numpy as np
import pytest
import torch

from ltkd.data import DeviceData, build_sampler
from ltkd.errors import UserError

COUNTS = [124, 60, 17, 6]  # 207 images
GROUPS = np.array([0, 0, 1, 2])


@pytest.fixture
def labels():
    ordered = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    return ordered[torch.randperm(207, generator=torch.Generator().manual_seed(9))]


def order_of(choice, labels, epoch=1, epochs=10, seed=0):
    return build_sampler(choice, labels).order(epoch, epochs, torch.Generator().manual_seed(seed))


def class_images(order, labels):
    return labels[order].bincount(minlength=4).tolist()


CHOICES = ["instance", "square_root", "class_balanced", "progressive", {"name": "power", "q": 0.25}]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_an_epoch_is_as_long_as_the_data_and_the_generators_alone(choice, labels):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = order_of(choice, labels)
    assert first.shape == (207,)
    assert torch.equal(first, order_of(choice, labels))
    assert not torch.equal(first, order_of(choice, labels, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_no_image_comes_twice_before_all_of_its_class_came_once(choice, labels):
    order = order_of(choice, labels, epoch=5)
    repeats = order.bincount(minlength=207)
    for label in range(4):
        mine = repeats[labels == label]
        assert mine.max() - mine.min() <= 1, label


@pytest.mark.parametrize("choice", CHOICES[1:], ids=str)  # instance: each image once, whatever its class
def test_the_classes_of_an_epoch_come_as_often_as_their_probabilities_say(choice, labels):
    sampler = build_sampler(choice, labels)
    expected = 207 * sampler.probabilities(5, 10)
    images = class_images(sampler.order(5, 10, torch.Generator().manual_seed(0)), labels)
    assert sum(images) == 207 == pytest.approx(expected.sum().item())
    for drawn, number in zip(images, expected.tolist(), strict=True):
        assert abs(drawn - number) < 1


def test_instance_sampling_is_the_plan_as_it_ever_was(labels):
    data = DeviceData(np.zeros((207, 1, 4, 4), np.uint8), labels, mean=[0.5], std=[0.5], crop_padding=1)
    expected = data.draw_epoch(torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    plan = data.draw_epoch(generator, build_sampler("instance", labels).order(1, 10, generator))
    for name in ("permutation", "offsets_y", "offsets_x", "flips"):
        assert torch.equal(getattr(plan, name), getattr(expected, name)), name
    assert sorted(plan.permutation.tolist()) == list(range(207))


def test_class_balanced_sampling_goes_round_the_classes(labels):
    """207 = 51 rounds of 4 classes and 3 classes more; a class's images go round too."""
    order = order_of("class_balanced", labels)
    drawn = labels[order]
    for start in range(0, 204, 4):
        assert sorted(drawn[start : start + 4].tolist()) == [0, 1, 2, 3]
    assert len(set(drawn[204:].tolist())) == 3
    assert sorted(class_images(order, labels)) == [51, 52, 52, 52]
    repeats = order.bincount(minlength=207)
    assert repeats[labels == 0].tolist().count(1) in (51, 52)  # of 124 images, the others not at all
    assert set(repeats[labels == 3].tolist()) <= {8, 9}  # 6 images
    assert len({tuple(drawn[start : start + 4].tolist()) for start in range(0, 204, 4)}) > 10  # not one fixed cycle
    assert len({tuple(order[labels[order] == 3][start : start + 6].tolist()) for start in range(0, 48, 6)}) > 1


@pytest.mark.parametrize(
    ("choice", "epoch", "expected"),
    [
        # sqrt: 11.136 + 7.746 + 4.123 + 2.449 = 25.454
        ("square_root", 1, [90.56, 62.99, 33.53, 19.92]),
        ({"name": "power", "q": 1.0}, 1, COUNTS),
        ({"name": "power", "q": 0.0}, 1, [51.75] * 4),
        ("progressive", 5, [87.875, 55.875, 34.375, 28.875]),  # half way: the mean of both ends
        ("progressive", 10, [51.75] * 4),
    ],
    ids=str,
)
def test_quotas_are_the_expected_numbers_rounded(choice, epoch, expected, labels):
    totals = torch.zeros(4)
    for seed in range(300):
        images = class_images(order_of(choice, labels, epoch=epoch, seed=seed), labels)
        assert sum(images) == 207
        assert all(abs(n - e) < 1 for n, e in zip(images, expected, strict=True))
        totals += torch.tensor(images)
    # 300 roundings of standard deviation up to .5: their mean's is below .03
    assert (totals / 300).tolist() == pytest.approx(expected, abs=0.12)


def test_power_one_shows_every_image_once_in_random_order(labels):
    order = order_of({"name": "power", "q": 1.0}, labels)
    assert sorted(order.tolist()) == list(range(207))
    assert labels[order][:124].bincount().tolist() != [124]  # not class after class


def test_repeats_by_group(labels):
    sampler = build_sampler("class_balanced", labels)
    order = sampler.order(1, 10, torch.Generator().manual_seed(0))
    images = class_images(order, labels)
    expected = {0: (images[0] + images[1]) / 184, 1: images[2] / 17, 2: images[3] / 6}
    assert sampler.repeats(order, GROUPS) == pytest.approx(expected)
    assert sampler.repeats(order, np.array([0, 0, 2, 2])) == pytest.approx(
        {0: expected[0], 2: (images[2] + images[3]) / 23}
    )
    assert build_sampler("instance", labels).repeats(order, GROUPS) == {}


@pytest.mark.parametrize(
    "choice", ["square_root", "class_balanced", "progressive", {"name": "power", "q": 0.0}], ids=str
)
def test_a_class_without_images_is_not_drawn(choice):
    labels = torch.tensor([0] * 6 + [2] * 3)
    order = order_of(choice, labels)
    assert sorted(set(labels[order].tolist())) == [0, 2]
    sampler = build_sampler(choice, labels)
    repeats = sampler.repeats(order, np.array([0, 1, 2, 3]))  # nothing of classes 1 and 3
    assert set(repeats) == {0, 2}
    assert sum(repeats[group] * n for group, n in ((0, 6), (2, 3))) == pytest.approx(9)


def test_unknown_sampling_lists_the_choices():
    with pytest.raises(UserError, match=r"recipe.sampling: unknown name 'balanced'.*class_balanced, instance"):
        build_sampler("balanced", torch.zeros(3, dtype=torch.int64))
