"""Batches on the device against torchvision, image by image."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as reference

from ltkd.data import DeviceData, StreamedData, device_data, load_data, storage
from ltkd.errors import UserError


def make_data(count, channels=3, size=32, padding=4, flip=True, **options):
    generator = np.random.RandomState(count)
    images = generator.randint(0, 256, (count, channels, size, size)).astype(np.uint8)
    mean, std = [0.5071, 0.4867, 0.4408][:channels], [0.2675, 0.2565, 0.2761][:channels]
    data = DeviceData(
        images, np.arange(count) % 7, mean=mean, std=std, crop_padding=padding, horizontal_flip=flip, **options
    )
    return images, mean, std, data


@pytest.mark.parametrize(("channels", "size", "padding", "flip"), [(3, 32, 4, True), (1, 8, 1, False), (3, 8, 0, True)])
def test_augmentation_is_torchvisions_bit_for_bit(channels, size, padding, flip):
    images, mean, std, data = make_data(150, channels, size, padding, flip)
    plan = data.draw_epoch(torch.Generator().manual_seed(1))
    assert plan.flips.any() == flip
    assert set(plan.offsets_y.tolist()) == set(plan.offsets_x.tolist()) == set(range(2 * padding + 1))
    position = 0
    for step in range(len(data.steps(64))):
        batch = data.batch(plan, step, 64)
        assert batch.images.dtype == torch.float32
        for row, image, label in zip(batch.index, batch.images, batch.labels, strict=True):
            picture = Image.fromarray(images[row].transpose(1, 2, 0).squeeze())
            picture = reference.pad(picture, padding)
            picture = reference.crop(picture, int(plan.offsets_y[position]), int(plan.offsets_x[position]), size, size)
            if plan.flips[position]:
                picture = reference.hflip(picture)
            assert torch.equal(image, reference.normalize(reference.to_tensor(picture), mean, std))
            assert label == row % 7
            position += 1
    assert position == 150


def test_evaluation_is_the_plain_image_in_order():
    images, mean, std, data = make_data(10)
    batches = list(data.evaluation_batches(4))
    assert [len(batch.labels) for batch in batches] == [4, 4, 2]
    expected = reference.normalize(torch.from_numpy(images).float() / 255, mean, std)
    assert torch.equal(torch.cat([batch.images for batch in batches]), expected)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(10))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [i % 7 for i in range(10)]
    assert torch.equal(data.whole(torch.tensor([7, 0, 7])), expected[[7, 0, 7]])


def test_without_gradients_batches_are_what_the_device_takes_best():
    *_, data = make_data(150)
    assert [len(batch.labels) for batch in data.evaluation_batches()] == [64, 64, 22]
    assert data.forward_batch == 64


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_memory_format(memory_format):
    data = make_data(10, memory_format=memory_format)[-1]
    plan = data.draw_epoch(torch.Generator().manual_seed(0))
    for batch in (data.batch(plan, 0, 4), next(data.evaluation_batches(4))):
        assert batch.images.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (130, 64, [64, 64, 2]),
        (128, 64, [64, 64]),
        (129, 64, [64, 65]),  # one image alone would stop BatchNorm
        (5, 2, [2, 3]),
        (2, 64, [2]),
        (65, 64, [65]),
    ],
)
def test_every_image_once_per_epoch_and_never_one_alone(count, batch_size, sizes):
    data = make_data(count, size=8)[-1]
    plan = data.draw_epoch(torch.Generator().manual_seed(0))
    batches = [data.batch(plan, step, batch_size) for step in range(len(data.steps(batch_size)))]
    assert [len(batch.images) for batch in batches] == sizes
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(count))
    with pytest.raises(IndexError):
        data.batch(plan, len(sizes), batch_size)


def test_what_batch_norm_cannot_train_on():
    with pytest.raises(UserError, match="batch_size: 1"):
        make_data(10)[-1].steps(1)
    with pytest.raises(UserError, match="1 training image"):
        make_data(1)[-1].steps(64)


def test_plan_is_the_generators_alone():
    data = make_data(200)[-1]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    first, second = data.draw_epoch(generator), data.draw_epoch(generator)
    generator.set_state(state)
    again = data.draw_epoch(generator)
    data.batch(first, 0, 64)
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("permutation", "offsets_y", "offsets_x", "flips"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.offsets_y, first.offsets_x)


def test_only_training_data_is_augmented(digits):
    train, validation, test = (device_data(digits, part, device="cpu") for part in ("train", "validation", "test"))
    assert [len(part) for part in (train, validation, test)] == [387, 300, 500]
    assert [part.crop_padding for part in (train, validation, test)] == [1, 0, 0]
    assert torch.equal(test.labels, torch.from_numpy(digits.test_labels))


def test_empty_validation_gives_no_batches():
    empty = DeviceData(np.empty((0, 3, 8, 8), np.uint8), np.empty(0, np.int64), mean=[0.5] * 3, std=[0.2] * 3)
    assert list(empty.evaluation_batches(64)) == []


def test_every_view_has_a_number_of_its_own():
    images = np.zeros((3, 1, 6, 6), dtype=np.uint8)
    data = DeviceData(images, [0, 1, 2], mean=[0.0], std=[1.0], crop_padding=2, horizontal_flip=True)
    assert data.num_views == 50
    numbers = torch.arange(150)
    plan = data.plan_of_views(numbers)
    assert torch.equal(data.view_numbers(plan), numbers)
    choices = torch.stack([plan.permutation, plan.offsets_y, plan.offsets_x, plan.flips.long()], dim=1)
    assert len(choices.unique(dim=0)) == 150
    assert choices.max(dim=0).values.tolist() == [2, 4, 4, 1]
    assert torch.equal(plan.take(slice(7, 9)).offsets_x, plan.offsets_x[7:9])


@pytest.mark.parametrize(("channels", "size", "padding", "flip"), [(3, 32, 4, True), (1, 8, 1, False), (3, 8, 0, True)])
def test_streamed_batches_are_equal_bit_for_bit(tmp_path, channels, size, padding, flip):
    """From a mapped file, which is not read as a whole."""
    images, mean, std, data = make_data(150, channels, size, padding, flip)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    options = {"mean": mean, "std": std, "crop_padding": padding, "horizontal_flip": flip}
    streamed = StreamedData(mapped, np.arange(150) % 7, **options)
    assert streamed.source.data_ptr() == mapped.ctypes.data  # no copy
    plan = data.draw_epoch(torch.Generator().manual_seed(1))
    again = streamed.draw_epoch(torch.Generator().manual_seed(1))
    for step in range(len(data.steps(64))):
        batch, other = data.batch(plan, step, 64), streamed.batch(again, step, 64)
        assert torch.equal(batch.images, other.images)
        assert batch.images.stride() == other.images.stride()
        assert torch.equal(batch.index, other.index)
        assert torch.equal(batch.labels, other.labels)
    assert torch.equal(data.whole(torch.tensor([5, 2])), streamed.whole(torch.tensor([5, 2])))
    for batch, other in zip(data.evaluation_batches(40), streamed.evaluation_batches(40), strict=True):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.index, other.index)


def test_images_that_do_not_fit_are_streamed(dataset_config, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    data = load_data(dataset_config("digits_lt"), tmp_path)
    needed = 2 * len(data.train_labels) * 10 * 10
    for available, expected in ((needed * 2, DeviceData), (needed, StreamedData), (None, DeviceData)):
        monkeypatch.setattr(storage, "available_memory", lambda device, available=available: available)
        assert type(device_data(data, "train", device="cpu")) is expected
    assert "train images: streamed" in caplog.text
    data = load_data(dataset_config("digits_lt", storage="stream"), tmp_path)
    assert type(device_data(data, "test", device="cpu")) is StreamedData
    assert "storage" not in data.config.settings()
