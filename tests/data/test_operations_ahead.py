"""Operations that are carried out for several steps at once give the batches of one step at a time."""

import pytest
import torch

from ltkd.data import batches, operations
from ltkd.ranks import Ranks

from .test_batches import make_data

STEPS = 7  # of 32 images, the last of 33
WINDOW = 3 * 32 * 3 * 15 * 15  # three batches; an odd number of pixels: vectors of a processor end within images


@pytest.fixture
def applied(monkeypatch):
    """The number of images of each call of `operations.apply`."""
    calls, apply = [], operations.apply

    def watched(images, *rest):
        calls.append(len(images))
        return apply(images, *rest)

    monkeypatch.setattr(operations, "apply", watched)
    monkeypatch.setattr(batches, "AHEAD", WINDOW)
    return calls


def data_of(augmentation):
    return make_data(225, size=15)[-1].augmented(augmentation)


def plan_of(data, seed=1):
    return data.draw_epoch(torch.Generator().manual_seed(seed))


def one_by_one(data, seed=1, steps=range(STEPS)):
    """Each batch from a plan that has nothing ready but for this batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "AHEAD", 0)
        return [data.batch(plan_of(data, seed), step, 32) for step in steps]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.images.stride() == other.images.stride()
        assert torch.equal(one.index, other.index)
        assert one.partner_labels is None or torch.equal(one.partner_labels, other.partner_labels)


@pytest.mark.parametrize("choice", ["autoaugment+cutout", "randaugment+cutout+mixup+cutmix", "trivialaugment+cutmix"])
def test_the_batches_of_an_epoch(choice, applied):
    data = data_of(choice)
    expected = one_by_one(data)
    assert applied == [32] * 6 + [33]
    plan = plan_of(data)
    assert_same([data.batch(plan, step, 32) for step in range(STEPS)], expected)
    assert applied[STEPS:] == [96, 96, 33]
    middle = plan_of(data)  # as after a resume
    assert_same([data.batch(middle, step, 32) for step in range(2, STEPS)], expected[2:])
    assert applied[STEPS + 3 :] == [96, 65]  # by the size of a batch, of which the last has one more
    any_order = [4, 5, 1, 1, 6, 0]
    assert_same([data.batch(plan, step, 32) for step in any_order], [expected[step] for step in any_order])
    assert data.batch(plan, 1, 50).images.shape[0] == 50
    assert_same([data.batch(plan, 1, 32)], expected[1:2])


def test_trainings_that_take_turns_keep_their_own(applied):
    """Two plans of one data set, another augmentation of it, and a part of each batch for another process."""
    data = data_of("autoaugment")
    other = data.augmented("randaugment")
    plans, theirs = [plan_of(data), plan_of(data, 2)], plan_of(other)
    turns = [(data, plans[0], 1), (data, plans[1], 2), (other, theirs, 1)]
    expected = [one_by_one(source, seed) for source, _, seed in turns]
    applied.clear()
    found = [[source.batch(plan, step, 32) for source, plan, _ in turns] for step in range(STEPS)]
    for one, batches_of_one in zip(zip(*found, strict=True), expected, strict=True):
        assert_same(one, batches_of_one)
    assert applied == [96] * 6 + [33] * 3
    assert not plans[0].take(slice(0, 32)).ahead
    assert not plans[0].ahead  # all were asked for


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("choice", ["autoaugment", "autoaugment+mixup+cutmix"])
def test_a_process_changes_its_own_images_alone(choice, parts, applied):
    """And where images are mixed, for each part of a batch the one before its first."""
    data = data_of(choice)
    expected, plan = one_by_one(data), plan_of(data)
    applied.clear()
    for rank in range(2):
        own = data.shared_by(Ranks(rank, 2)).in_parts(parts)
        found = [own.batch(plan, step, 32) for step in range(STEPS)]
        rows = [torch.cat([torch.arange(225)[one] for one in own.steps(32).own(step)]) for step in range(STEPS)]
        for step in range(STEPS):
            names = ("images", "labels", "index", *(["partner_labels"] if "mixup" in choice else []))
            for name in names:
                whole = getattr(expected[step], name)[rows[step] - 32 * step]
                assert torch.equal(getattr(found[step], name), whole)
            assert found[step].own_share == expected[step].own_share
    assert sum(applied) == len(data) + (2 * STEPS * parts if "mixup" in choice else 0)
    assert len(applied) <= 6
