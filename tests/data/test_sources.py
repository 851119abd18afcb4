"""Files to arrays: what is read, and what is refused."""

import hashlib
import pickle
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from ltkd.data import load_data, load_source, sources
from ltkd.data.cifar import read_batch_file
from ltkd.errors import UserError


class Malicious:
    """A pickle that would create a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_digits_are_balanced_and_disjoint(tmp_path):
    source = load_source("digits", tmp_path, download=False)
    assert source.train_images.shape == (1240, 1, 8, 8)
    assert source.train_images.dtype == np.uint8
    assert source.train_images.max() == 255
    assert np.bincount(source.train_labels).tolist() == [124] * 10
    assert np.bincount(source.test_labels).tolist() == [50] * 10
    train, test = ({image.tobytes() for image in part} for part in (source.train_images, source.test_images))
    assert not train & test
    again = load_source("digits", tmp_path, download=False)
    assert np.array_equal(source.test_images, again.test_images)


def test_digits_long_tail(dataset_config, tmp_path):
    data = load_data(dataset_config("digits_lt"), tmp_path)
    assert data.split.class_counts.tolist() == [124, 88, 63, 45, 32, 23, 16, 12, 8, 6]
    assert np.array_equal(data.train_labels, np.repeat(np.arange(10), data.split.class_counts))
    source = load_source("digits", tmp_path, download=False)
    assert np.array_equal(data.train_images, source.train_images[data.split.indices])
    assert abs(source.train_images.mean() / 255 - data.config.mean[0]) < 5e-4
    assert abs(source.train_images.std() / 255 - data.config.std[0]) < 5e-4


def test_cifar100_files(dataset_config, cifar100_root):
    data = load_data(dataset_config("cifar100_lt"), cifar100_root)
    assert data.train_images.shape == (10847, 3, 32, 32)
    assert data.test_images.shape == (10000, 3, 32, 32)
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int64
    assert np.array_equal(data.train_labels, np.repeat(np.arange(100), data.split.class_counts))
    assert data.class_names[:2] == ["apple", "aquarium_fish"]


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch):
    """Two training batches and a test batch in CIFAR-10's format, with their own checksums for the published ones."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content, protocol=4))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(name, first):
        pixels = np.arange(first, first + 3 * 3072).reshape(3, 3072).astype(np.uint8)
        return write(name, {"data": pixels, "labels": [first % 10, 1, 2]})

    monkeypatch.setattr(CIFAR10, "train_list", [batch("data_batch_1", 3), batch("data_batch_2", 4)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", 5)])
    _, md5 = write("batches.meta", {"label_names": ["plane", "car"]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5})
    return folder


def test_cifar10_files_in_order(small_cifar10):
    source = load_source("cifar10", small_cifar10.parent, download=False)
    assert source.train_labels.tolist() == [3, 1, 2, 4, 1, 2]
    assert source.test_labels.tolist() == [5, 1, 2]
    assert source.class_names == ["plane", "car"]
    # A row holds 1024 red values, row by row, then green, then blue.
    assert source.train_images[3, :, 0, 1].tolist() == [(4 + 1 + 1024 * c) % 256 for c in range(3)]
    assert source.train_images[0, 0, 1, 0] == 3 + 32


@pytest.mark.parametrize("size", [16, 4])
def test_smaller_images_are_averages_of_squares(small_cifar10, size):
    whole, small = (load_source("cifar10", small_cifar10.parent, download=False, image_size=s) for s in (32, size))
    factor, pixels = 32 // size, small.train_images
    assert pixels.shape == (*whole.train_images.shape[:2], size, size)
    assert pixels.dtype == np.uint8
    for row, (y, x) in enumerate([(0, 0), (size - 1, 1), (2, size - 1)]):
        square = whole.train_images[row, 1, factor * y : factor * (y + 1), factor * x : factor * (x + 1)]
        assert pixels[row, 1, y, x] == int(square.astype(float).mean() + 0.5)
    assert np.array_equal(small.train_labels, whole.train_labels)
    with pytest.raises(UserError, match=r"dataset\.image_size: 24; .*16, 8, 4"):
        load_source("cifar10", small_cifar10.parent, download=False, image_size=24)


def test_altered_file_is_refused_before_it_is_read(small_cifar10):
    with (small_cifar10 / "data_batch_2").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"data_batch_2: damaged or altered \(MD5 .*delete .*download=true"):
        load_source("cifar10", small_cifar10.parent, download=False)


def test_missing_file_says_what_to_do(small_cifar10):
    (small_cifar10 / "test_batch").unlink()
    with pytest.raises(UserError, match=r"test_batch: cannot be read .* dataset\.download=true"):
        load_source("cifar10", small_cifar10.parent, download=False)


def test_a_file_that_a_readers_own_code_does_not_find_is_one_message(tmp_path, monkeypatch):
    def read(data_root):
        return np.load(data_root / "train.npz")

    monkeypatch.setitem(sources._READERS, "mine", sources.Reader(read, None, None, False))
    with pytest.raises(UserError, match=rf"^data set mine: {tmp_path}/train\.npz: No such file or directory$"):
        load_source("mine", tmp_path)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickle_is_not_executed(tmp_path, protocol):
    """Even with the right checksum."""
    path, trace = tmp_path / "train", tmp_path / "executed"
    path.write_bytes(pickle.dumps({"data": Malicious(trace)}, protocol=protocol))
    with pytest.raises(UserError, match=r"train: not read, it refers to .*io\.open"):
        read_batch_file(path, hashlib.md5(path.read_bytes()).hexdigest())
    assert not trace.exists()


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A web server on this machine: its address and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_download_fetches_what_is_absent(small_cifar10, tmp_path, monkeypatch, web):
    address, folder = web
    archive = folder / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(small_cifar10, arcname=small_cifar10.name)
    monkeypatch.setattr(CIFAR10, "url", f"{address}/{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    source = load_source("cifar10", tmp_path / "first", download=True)
    assert source.train_labels.tolist() == [3, 1, 2, 4, 1, 2]

    assert {entry.name for entry in (tmp_path / "first").iterdir()} <= {
        CIFAR10.base_folder,
        CIFAR10.filename,
        f".{CIFAR10.base_folder}.lock",
    }

    archive.write_bytes(b"not what was published")
    load_source("cifar10", tmp_path / "first", download=True)  # present: nothing is fetched
    with pytest.raises(UserError, match=r"second/cifar-10-python\.tar\.gz: download from http.* failed"):
        load_source("cifar10", tmp_path / "second", download=True)
    archive.unlink()
    with pytest.raises(UserError, match=r"third/cifar-10-python\.tar\.gz: download .*404.*; try again"):
        load_source("cifar10", tmp_path / "third", download=True)
    assert not (tmp_path / "third" / CIFAR10.base_folder).exists()  # no empty folder that looks like the data set


def test_settings_that_do_not_fit(dataset_config, tmp_path):
    with pytest.raises(UserError, match="image_size"):
        load_data(dataset_config("digits_lt", image_size=32), tmp_path)
    with pytest.raises(UserError, match=r"dataset\.std: .* 1 channels"):
        dataset_config("digits_lt", std=[0.1, 0.1])
    with pytest.raises(UserError, match=r"dataset\.path"):
        dataset_config("digits_lt", path="file.ltpack")
    with pytest.raises(UserError, match="did you mean 'digits'"):
        load_data(replace(dataset_config("digits_lt"), source="digit"), tmp_path)
