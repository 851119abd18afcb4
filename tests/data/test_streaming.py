"""Image files decoded batch by batch: the same bits as in memory, whatever the number of workers."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from ltkd.data import DeviceData, device_data, image_files, load_data, loader
from ltkd.data.decoding import decode
from ltkd.data.streaming import StreamedFiles
from ltkd.errors import UserError
from tests.data.pictures import pixels, write, write_folder


@pytest.fixture
def root(tmp_path):
    """Files of several sizes and kinds, one of them damaged."""
    root = tmp_path / "own"
    write_folder(root / "train", {"ape": 9, "bee": 7, "cow": 5})
    write_folder(root / "test", {"ape": 2, "bee": 2, "cow": 2}, first=100)
    write(root / "train/ape/large.jpg", 50, side=40)
    Image.fromarray(pixels(51, 30)[:20]).save(root / "train/bee/wide.webp")
    (root / "train/cow/damaged.png").write_bytes(b"")
    return root


@pytest.fixture
def train(own_images, root, tmp_path):
    """The training part for some settings."""

    def make(storage="stream", resized_crops=False, **changes):
        config = own_images(path=root, storage=storage, on_bad_image="skip", **changes)
        data = load_data(config, tmp_path, resized_crops=resized_crops)
        return data, device_data(data, "train", device="cpu")

    return make


def epoch_of(data, choice, batch_size=8, seed=1, first=0):
    data = data.augmented(choice)
    plan = data.draw_epoch(torch.Generator().manual_seed(seed))
    return [data.batch(plan, step, batch_size) for step in range(first, len(data.steps(batch_size)))]


def same(batches, others):
    return len(batches) == len(others) and all(
        torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        for one, other in zip(batches, others, strict=True)
    )


@pytest.mark.parametrize("choice", ["crop_flip", "autoaugment+cutout+mixup"])
def test_workers_and_storage_change_no_bit(train, choice):
    in_memory = epoch_of(train("memory")[1], choice)
    assert type(train("memory")[1]) is DeviceData
    before = torch.get_rng_state()
    for workers in (0, 2):
        data = train(workers=workers)[1]
        assert type(data) is StreamedFiles
        assert same(epoch_of(data, choice), in_memory)
        assert same(epoch_of(data, choice, first=1), in_memory[1:])  # as after a resume
        assert same(list(data.evaluation_batches(5)), list(train("memory")[1].evaluation_batches(5)))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_may_be_left_and_another_begun(train):
    data = train(workers=2)[1].augmented("crop_flip")
    plans = [data.draw_epoch(torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    data.batch(plans[0], 0, 4)
    middle = data.batch(plans[1], 1, 4)
    assert torch.equal(middle.index, plans[1].permutation[4:8])
    assert torch.equal(data.batch(plans[0], 2, 4).index, plans[0].permutation[8:12])
    assert same([data.batch(plans[1], 1, 4)], [middle])


def test_resized_crops_are_cut_from_whole_files(train, root):
    loaded, data = train(resized_crops=True)
    batches = epoch_of(data, "resized_crop_flip")
    assert same(epoch_of(train(resized_crops=True, workers=2)[1], "resized_crop_flip"), batches)
    cropped = data.augmented([{"name": "resized_crop_flip", "smallest": 0.5}])
    plan = cropped.draw_epoch(torch.Generator().manual_seed(1))
    batch = cropped.batch(plan, 0, 8)
    for position, image in enumerate(batch.images):
        path = root / loaded.train_images.paths[plan.permutation[position]]
        crop = torch.from_numpy(decode(path, channels=3, size=8, crop=(int(plan.drawn["crop_seeds"][position]), 0.5)))
        crop = crop.flip(2) if plan.flips[position] else crop
        assert torch.equal(image, cropped.normalised(crop[None])[0])


def test_evaluation_of_resized_crops_is_imagenets(train, root):
    loaded, data = train(resized_crops=True, image_size=28)
    row = next(row for row, path in enumerate(loaded.train_images.paths) if path.endswith("wide.webp"))
    image = Image.open(root / "train/bee/wide.webp").convert("RGB")
    expected = v2.functional.pil_to_tensor(v2.Compose([v2.Resize(32), v2.CenterCrop(28)])(image))
    assert torch.equal(data.raw(torch.tensor([row]))[0], expected)


def test_resized_crops_of_arrays(digits):
    data = device_data(digits, "train", device="cpu").augmented("resized_crop_flip")
    plan = data.draw_epoch(torch.Generator().manual_seed(1))
    row, seed = int(plan.permutation[3]), int(plan.drawn["crop_seeds"][3])
    image = Image.fromarray(digits.train_images[row, 0])
    torch.manual_seed(seed)
    expected = v2.functional.pil_to_tensor(v2.RandomResizedCrop(8, antialias=True)(image))
    assert torch.equal(data.batch(plan, 0, 64).images[3], data.normalised(expected[None])[0])


def test_a_stream_has_the_manifest_of_the_decoded_images(train, root, monkeypatch, caplog):
    """Each file is decoded once, so that damaged ones and duplicates are known; the next run has that."""
    write(root / "test/ape/again.png", 3)
    manifest = train("memory")[0].manifest()
    assert manifest["files"]["skipped"] == {"train": ["cow/damaged.png"]}
    assert manifest["files"]["test_images_also_in_training"] == 1
    assert train()[0].manifest() == manifest
    assert np.array_equal(train()[0].decoded().train_images, train("memory")[0].train_images)
    monkeypatch.setattr(image_files, "decode", None)  # would fail
    assert train()[0].manifest() == manifest
    monkeypatch.undo()
    for path in (root / image_files.DECODED).glob("*.npz"):
        path.write_bytes(path.read_bytes()[:-9])
    assert train()[0].manifest() == manifest
    assert "the images are checked again" in caplog.text


def test_damaged_files_are_refused_before_training(own_images, root, tmp_path):
    with pytest.raises(UserError, match=r"1 of 24 image files: .*damaged\.png \(empty file\) cannot be decoded"):
        load_data(own_images(path=root, storage="stream"), tmp_path)
    with pytest.raises(UserError, match=r"dataset\.storage: memory is not possible, resized_crop_flip cuts from whole"):
        load_data(own_images(path=root, storage="memory"), tmp_path, resized_crops=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_damaged_later_is_one_line(train, root, workers):
    data = train(workers=workers)[1]
    for path in (root / "train/bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot be decoded any more \(empty file\)") as error:
        epoch_of(data, "crop_flip")
    assert "\n" not in str(error.value)


def test_a_worker_that_is_killed_is_one_line():
    def torchs():
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
        yield

    with pytest.raises(UserError, match=r"a process that decodes images ended .*dataset\.workers=0"):
        loader._next(torchs())


def test_at_most_two_batches_per_worker_are_ahead(train):
    """The bound of the memory: what waits is what the workers were asked for."""
    data = train(workers=2)[1].augmented("crop_flip")
    plan = data.draw_epoch(torch.Generator().manual_seed(1))
    data.fetch(plan, 0, 2)
    iterator = data._epoch.loader._loader._iterator
    assert iterator._send_idx - iterator._rcvd_idx <= 2 * 2


def test_views_that_no_worker_was_asked_for(train):
    data, in_memory = train(workers=2)[1], train("memory")[1]
    numbers = torch.tensor([0, 7, 200])
    assert torch.equal(
        data.batch_of(data.plan_of_views(numbers)).images, in_memory.batch_of(in_memory.plan_of_views(numbers)).images
    )
    assert np.array_equal(data.raw(torch.tensor([2, 1])), in_memory.raw(torch.tensor([2, 1])))
