"""The strong view of a batch: whose images, which random state, one channel or three."""

import pytest
import torch

from ltkd.data import SecondViews, second_view

from .test_batches import make_data

CASES = [(3, 32, 4, True), (1, 8, 1, False), (3, 8, 0, True)]


def views_of(data, plan, seed=(5, 1)):
    views = SecondViews(data)
    views.start_epoch(plan, seed)
    return views


def plan_of(data, seed=1):
    return data.draw_epoch(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("channels", "size", "padding", "flip"), CASES)
def test_without_operations_each_view_is_a_crop_of_its_own_image(monkeypatch, channels, size, padding, flip):
    """Independent of the first view's crop, and normalised as it is."""
    monkeypatch.setattr(second_view, "STRONG", {"name": "cutout", "length": 1})  # which covers nothing
    *_, data = make_data(70, channels, size, padding, flip)
    plan = plan_of(data)
    views, offsets = views_of(data, plan), range(2 * padding + 1)
    kinds = set()
    for step in range(len(data.steps(64))):
        batch, second = data.batch(plan, step, 64), views.batch(step, 64)
        assert second.shape == batch.images.shape
        assert second.stride() == batch.images.stride()
        for row, image in zip(batch.index, second, strict=True):
            every = [(y, x, f) for y in offsets for x in offsets for f in ((False, True) if flip else (False,))]
            y, x, flips = (torch.tensor(column) for column in zip(*every, strict=True))
            crops = data.views(row.expand(len(every)), y, x, flips.bool())
            matches = (crops == image).flatten(1).all(dim=1).nonzero().flatten().tolist()
            assert matches
            kinds.add(every[matches[0]])
    assert len(kinds) > 1 or (padding, flip) == (0, False)
    assert {kind[2] for kind in kinds} == ({False, True} if flip else {False})


@pytest.mark.parametrize(("channels", "size", "padding", "flip"), CASES)
def test_the_views_are_strong_and_stay_within_the_range_of_pixels(channels, size, padding, flip):
    *_, data = make_data(150, channels, size, padding, flip)
    plan = plan_of(data)
    second = views_of(data, plan).batch(0, 150)
    black, white = (data.normalised(torch.full_like(data.source[:1], value)) for value in (0, 255))
    assert (second >= black).all()
    assert (second <= white).all()
    original = data.normalised(data.source[plan.permutation])
    changed = (second != original).flatten(1).any(dim=1).float().mean()
    assert changed > 0.8  # of 14 operations two leave an image as it is at times; both drawn of that kind are rare


def test_a_view_depends_on_seed_and_step_and_on_nothing_drawn_before():
    *_, data = make_data(70)
    plan = plan_of(data)
    torch.manual_seed(1)
    first, second = (views_of(data, plan).batch(step, 32) for step in (0, 1))
    torch.manual_seed(2)
    torch.rand(7)
    assert torch.equal(views_of(data, plan).batch(1, 32), second)  # as after a resume in the middle of an epoch
    again = views_of(data, plan)
    assert torch.equal(again.batch(0, 32), first)
    assert torch.equal(again.batch(0, 32), first)
    assert not torch.equal(views_of(data, plan, (5, 2)).batch(0, 32), first)
    assert not torch.equal(views_of(data, plan, (6, 1)).batch(0, 32), first)


def test_the_global_generator_is_left_as_it_was():
    *_, data = make_data(20)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    views_of(data, plan_of(data)).batch(0, 20)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_augmentation_is_drawn_for_each_image():
    """Copies of one image in one batch do not all become the same view."""
    *_, data = make_data(64, padding=0, flip=False)
    plan = plan_of(data)
    data.source[:] = data.source[0].clone()
    second = views_of(data, plan).batch(0, 64)
    assert len(second.flatten(1).unique(dim=0)) > 10
