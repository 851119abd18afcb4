"""The file of a teacher's logits: an entry is there when it is whole, whatever happened to the writers."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ltkd.errors import UserError
from ltkd.loop.teacher_cache import ABOUT, ENTRIES, TeacherCache, record_type

from ..conftest import PROJECT

ENTRIES_IN_ALL, CLASSES = 1000, 7


def open_cache(folder, about=None, dtype="float32"):
    return TeacherCache(folder, about or {"data": "x"}, num_entries=ENTRIES_IN_ALL, num_classes=CLASSES, dtype=dtype)


def logits_of(entries):
    return (np.sin(np.outer(entries + 1, np.arange(1, CLASSES + 1))) * 9).astype(np.float32)


def there(cache):
    entries = np.arange(ENTRIES_IN_ALL)
    logits, found = cache.read(entries)
    return entries[found], logits[found]


def test_what_was_written_is_there_and_nothing_else(tmp_path):
    entries = np.array([5, 999, 0, 17])
    cache = open_cache(tmp_path)
    assert len(there(cache)[0]) == 0
    cache.write(entries, logits_of(entries))
    for reader in (cache, open_cache(tmp_path)):  # of this process, and of any other that opens it
        found, logits = there(reader)
        assert found.tolist() == [0, 5, 17, 999]
        assert np.array_equal(logits, logits_of(found))
    assert os.stat(cache.folder / ENTRIES).st_blocks * 512 < 5 * 4096 * 4  # holes take no space


@pytest.mark.parametrize("entries", [[], [7], [3, 4, 5], [3, 4, 9, 10, 11, 2, 1, 0, 12]])
def test_neighbours_and_strays_are_written_to_their_places(tmp_path, entries):
    entries = np.array(entries, dtype=np.int64)
    cache = open_cache(tmp_path)
    cache.write(entries, logits_of(entries))
    found, logits = there(cache)
    assert found.tolist() == sorted(entries)
    assert np.array_equal(logits, logits_of(found))


def test_float16_is_stored_in_half_the_space(tmp_path):
    entries = np.arange(10)
    cache = open_cache(tmp_path, dtype="float16")
    cache.write(entries, logits_of(entries))
    found, logits = there(cache)
    assert found.tolist() == entries.tolist()
    assert np.array_equal(logits, logits_of(entries).astype(np.float16))
    assert record_type(100, "float16").itemsize == 208


@pytest.mark.parametrize("byte", range(36))
def test_an_entry_with_one_wrong_bit_is_not_there(tmp_path, byte):
    entries = np.arange(20)
    cache = open_cache(tmp_path)
    cache.write(entries, logits_of(entries))
    with open(cache.folder / ENTRIES, "r+b") as file:
        file.seek(3 * 36 + byte)
        old = file.read(1)[0]
        file.seek(3 * 36 + byte)
        file.write(bytes([old ^ 4]))
    assert there(cache)[0].tolist() == [entry for entry in range(20) if entry != 3]


def test_an_entry_at_another_place_is_not_there(tmp_path):
    cache = open_cache(tmp_path)
    cache.write(np.array([3]), logits_of(np.array([3])))
    content = (cache.folder / ENTRIES).read_bytes()
    with open(cache.folder / ENTRIES, "r+b") as file:
        file.seek(8 * 36)
        file.write(content[3 * 36 : 4 * 36])
    assert there(cache)[0].tolist() == [3]


def test_a_file_that_was_cut_off_loses_what_was_cut_off(tmp_path):
    entries = np.arange(50)
    cache = open_cache(tmp_path)
    cache.write(entries, logits_of(entries))
    os.truncate(cache.folder / ENTRIES, 20 * 36 + 7)
    assert there(open_cache(tmp_path))[0].tolist() == list(range(20))


def test_another_teacher_or_precision_has_another_file(tmp_path):
    folders = {
        open_cache(tmp_path, about).folder for about in ({"data": "x"}, {"data": "y"}, {"data": "x", "probe": "0"})
    }
    folders.add(open_cache(tmp_path, dtype="float16").folder)
    assert len(folders) == 4


def test_complete_is_remembered(tmp_path):
    cache = open_cache(tmp_path)
    assert not cache.is_complete
    cache.mark_complete()
    assert open_cache(tmp_path).is_complete
    assert (cache.folder / ABOUT).read_text().count("complete") == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        open_cache(tmp_path / "file")


WRITER = """
import sys
import numpy as np
from tests.loop.test_teacher_cache import ENTRIES_IN_ALL, logits_of, open_cache
cache, order = open_cache(sys.argv[1]), np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
while True:
    entries = order.choice(ENTRIES_IN_ALL, 50)
    cache.write(entries, logits_of(entries))
"""


def test_two_writers_that_are_killed_leave_only_whole_entries(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(seed)], stdout=subprocess.PIPE, cwd=PROJECT)
        for seed in (1, 2)
    ]
    cache = open_cache(tmp_path)
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        found, deadline = [], time.monotonic() + 300
        while len(found) < 300 and time.monotonic() < deadline:
            found, logits = there(cache)
            assert np.array_equal(logits, logits_of(found))  # also while they write
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    found, logits = there(cache)
    assert len(found) >= 300
    assert np.array_equal(logits, logits_of(found))
