"""Augmentations against torchvision's, for the same choices."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ltkd.data import operations
from ltkd.data.augmentation import CHOICES, build_augmentation, joined_choice, split_choice
from ltkd.data.decoding import resized_crop
from ltkd.errors import UserError
from ltkd.losses import cutout_box

from .test_batches import make_data

THEIRS = {
    "autoaugment": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "randaugment": v2.RandAugment(2, 9),
    "trivialaugment": v2.TrivialAugmentWide(),
}


def choices_of(name, number=4000, size=32, seed=0, **arguments):
    choice = CHOICES[name](**arguments)
    return choice.table(size), choice.draw(number, size, np.random.RandomState(seed))


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", THEIRS)
def test_operations_are_torchvisions(name, channels):
    """Every entry of the table, image by image; the batch has other entries beside it."""
    table, _ = choices_of(name)
    images = torch.from_numpy(make_data(2 * len(table), channels)[0])
    images[::2] //= 3  # dark: autocontrast and equalize do something else
    chosen = torch.arange(len(table)).repeat(2)[:, None]
    ours = operations.apply(images, chosen, table)
    for image, own, number in zip(images, ours, chosen[:, 0], strict=True):
        operation, magnitude = table[number]
        expected = THEIRS[name]._apply_image_or_video_transform(
            image, operation, magnitude, interpolation=v2.InterpolationMode.NEAREST, fill={}
        )
        assert torch.equal(own, expected), (operation, magnitude)


@pytest.mark.parametrize("size", [8, 32, 224])
@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
def test_magnitudes_are_torchvisions(name, size):
    expected = {operations.IDENTITY}
    for operation, (magnitudes, signed) in THEIRS[name]._AUGMENTATION_SPACE.items():
        values = magnitudes(31, size, size)
        for value in [0.0] if values is None else values[[9] if name == "randaugment" else slice(None)].tolist():
            expected |= {(operation, float(value)), (operation, -value if signed else float(value))}
    assert set(choices_of(name, size=size)[0]) == expected


@pytest.mark.parametrize("policy", ["cifar10", "imagenet"])
def test_policies_are_torchvisions(policy):
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy(policy))
    assert operations.POLICIES[policy] == theirs._policies
    table, _ = choices_of("autoaugment", policy=policy)
    for line in theirs._policies:
        for name, _, level in line:
            values, signed = theirs._AUGMENTATION_SPACE[name]
            value = 0.0 if level is None else float(values(10, 32, 32)[level])
            assert (name, value) in table
            assert (name, -value) in table or not signed


def test_operations_are_drawn_as_often_as_they_should_be():
    table, drawn = choices_of("randaugment", 20_000)
    names = [operation for operation, _ in table]
    for operation in operations.CHOICES:
        share = np.isin(drawn, [place for place, name in enumerate(names) if name == operation]).mean()
        assert share == pytest.approx(1 / 14, abs=0.006)
    table, drawn = choices_of("autoaugment", 20_000)
    expected = {name: 0.0 for name, _ in table}
    for line in operations.CIFAR10:
        for name, probability, _ in line:
            expected[name] += probability / 25
    for name, share in expected.items():
        if name != "Identity":
            places = [place for place, operation in enumerate(table) if operation[0] == name]
            assert np.isin(drawn, places).sum() / 20_000 == pytest.approx(share, abs=0.012)
    signs = [np.sign(table[place][1]) for place in drawn.flatten() if table[place][0] == "TranslateY"]
    assert np.mean(signs) == pytest.approx(0, abs=0.1)
    table, drawn = choices_of("trivialaugment", 20_000)
    assert drawn.shape == (20_000, 1)
    assert len(drawn.unique()) == len(table)


def test_resized_crop_is_torchvisions():
    image = functional.to_pil_image(torch.from_numpy(make_data(1, size=50)[0][0]))
    before = torch.get_rng_state()
    ours = resized_crop(image, size=16, seed=5, smallest=0.3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    expected = v2.RandomResizedCrop(16, scale=(0.3, 1.0), antialias=True)(image)
    assert np.array_equal(ours, np.asarray(expected))


def test_batches_have_everything_in_its_order():
    """Crop and flip, then the operations, then cutout, against torchvision's functions on each image."""
    images, mean, std, plain = make_data(70)
    data = plain.augmented("cutout+crop_flip+autoaugment")
    plan = data.draw_epoch(torch.Generator().manual_seed(1))
    assert torch.equal(plan.permutation, plain.draw_epoch(torch.Generator().manual_seed(1)).permutation)
    table = data.augmentation.operations.table(32)
    batches = [data.batch(plan, step, 64) for step in range(2)]
    for position, image in enumerate(torch.cat([batch.images for batch in batches])):
        crop = functional.pad(torch.from_numpy(images[plan.permutation[position]]), [4])
        crop = functional.crop(crop, int(plan.offsets_y[position]), int(plan.offsets_x[position]), 32, 32)
        crop = functional.hflip(crop) if plan.flips[position] else crop
        for number in plan.drawn["operations"][position]:
            operation, magnitude = table[number]
            if number:
                crop = operations.changed(crop[None], operation, magnitude)[0]
        top, bottom, left, right = plan.drawn["cutout"][position].tolist()
        crop = functional.erase(crop, top, left, bottom - top, right - left, v=torch.tensor(0, dtype=torch.uint8))
        assert torch.equal(image, functional.normalize(crop.float() / 255, mean, std))
    assert batches[0].partner_labels is None


def test_cutout_boxes():
    boxes = CHOICES["cutout"](length=16).draw(3000, 32, np.random.RandomState(0)).tolist()
    possible = [cutout_box((y, x), size=32, length=16) for y in range(32) for x in range(32)]
    assert {tuple(box) for box in boxes} <= {tuple(box) for box in possible}
    assert len({tuple(box) for box in boxes}) > 600


@pytest.mark.parametrize(("name", "theirs"), [("mixup", v2.MixUp), ("cutmix", v2.CutMix)])
def test_mixtures_are_torchvisions(monkeypatch, name, theirs):
    *_, plain = make_data(70, memory_format=torch.contiguous_format)
    data = plain.augmented(name)
    plan = data.draw_epoch(torch.Generator().manual_seed(1))
    for step, start in enumerate((0, 32)):
        batch = data.batch(plan, step, 32)
        unmixed = plain.batch(plain.draw_epoch(torch.Generator().manual_seed(1)), step, 32)
        share, weight = float(plan.drawn["mix_share"][start]), float(plan.drawn["mix_weight"][start])
        y1, y2, x1, x2 = plan.drawn["mix_box"][start].tolist()
        given = {"lam": weight} if name == "mixup" else {"box": (x1, y1, x2, y2), "lam_adjusted": share}
        monkeypatch.setattr(theirs, "make_params", lambda self, inputs, given=given: given)
        images, labels = theirs(num_classes=7)(unmixed.images, unmixed.labels)
        assert torch.equal(batch.images, images)
        own, partner = (torch.nn.functional.one_hot(label, 7) for label in (batch.labels, batch.partner_labels))
        torch.testing.assert_close(batch.own_share * own + (1 - batch.own_share) * partner, labels)
        if name == "cutmix":
            assert share == pytest.approx(1 - (y2 - y1) * (x2 - x1) / 32**2)


def test_shares_of_mixtures_are_of_their_distribution():
    random = np.random.RandomState(0)
    weight, _, share = CHOICES["mixup"](alpha=0.2).draw(20_000, 32, random)
    assert weight.mean() == pytest.approx(0.5, abs=0.01)
    assert weight.var() == pytest.approx(0.25 / 1.4, abs=0.004)  # of Beta(a, a): 1 / (4 (2 a + 1))
    assert np.array_equal(weight, share)
    _, box, share = CHOICES["cutmix"]().draw(20_000, 32, random)
    assert ((box >= 0) & (box <= 32)).all()
    assert 0.55 < share.mean() < 0.75  # boxes at the border are cut off: more than half is left
    both = build_augmentation("mixup+cutmix").draw(20_000, 32, random)
    assert (both["mix_weight"] == 1).double().mean() == pytest.approx(0.5, abs=0.02)


def test_accuracy_of_a_mixture_counts_both_labels():
    *_, plain = make_data(8)
    batch = plain.augmented("mixup").batch(plain.augmented("mixup").draw_epoch(torch.Generator()), 0, 8)
    both = batch.own_share * (batch.labels == batch.labels[0]).float().mean()
    both += (1 - batch.own_share) * (batch.partner_labels == batch.labels[0]).float().mean()
    assert batch.accuracy(batch.labels[:1].expand(8)) == pytest.approx(100 * both.item())


def test_a_setting_has_one_form():
    assert joined_choice(split_choice(["cutout", {"name": "mixup", "alpha": 0.2}])) == [
        "crop_flip", "cutout", {"name": "mixup", "alpha": 0.2},
    ]  # fmt: skip
    forms = [
        "cutout+autoaugment",
        "crop_flip + autoaugment + cutout",
        ["autoaugment", "cutout"],
        [{"name": "cutout"}, "autoaugment"],
    ]
    for one, other in pairwise(joined_choice(split_choice(form)) for form in forms):
        assert one == other == "crop_flip+autoaugment+cutout"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("autoaugmnt", "unknown .*did you mean 'autoaugment'"),
        ("crop_flip+resized_crop_flip", "at most one of crop_flip, resized_crop_flip"),
        ("randaugment+autoaugment", "at most one of autoaugment"),
        ("cutout+cutout", "at most one of cutout"),
        ([3], "should be names joined by"),
        ([{"length": 3}], "should be names joined by"),
    ],
)
def test_settings_that_mean_nothing(choice, message):
    with pytest.raises(UserError, match=message):
        split_choice(choice)
