"""The teacher ahead of the steps: the same logits with and without a cache, and no number that depends on one."""

import contextlib
import gc
import json
import logging
import os
import signal
import subprocess
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ltkd.config.identity import student_run, teacher_run
from ltkd.config.schema import Cache
from ltkd.data import DeviceData
from ltkd.loop import resident_logits, teacher_cache, teacher_logits
from ltkd.loop.interrupt import Interrupted
from ltkd.loop.teacher_logits import TeacherLogits, plan_cache, use_cache
from ltkd.loop.turns import Turns
from ltkd.methods import method_class
from ltkd.models import build_model
from ltkd.models.output import ModelOutput
from ltkd.runs.run import run_experiment

from ..conftest import PROJECT

IMAGES, CLASSES, STEP = 150, 10, 50


class Counting(nn.Module):
    """A network that counts the images it sees."""

    def __init__(self, network):
        super().__init__()
        self.network, self.images = network, 0

    def forward(self, images, *, features=False):
        self.images += len(images)
        return self.network(images, features=features)


class Centred(nn.Module):
    """A network whose logits of an image depend on the other images of its batch."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images, *, features=False):
        logits = self.network(images).logits
        return ModelOutput(logits - logits.mean(0))


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, 3, 12, 12), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, IMAGES)
    return DeviceData(images, labels, mean=[0.5] * 3, std=[0.25] * 3, crop_padding=2, horizontal_flip=True)


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    model = build_model("resnet8", num_classes=CLASSES).to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return Counting(model.eval().requires_grad_(False))


def settings(mode="auto", max_gigabytes=1.0, storage="float32"):
    return Cache(mode, max_gigabytes, storage)


def make(teacher, data, folder, epochs=3, precision=contextlib.nullcontext, **choices):
    chosen = settings(**choices)
    logits = TeacherLogits(teacher, data, precision, num_classes=CLASSES, storage=chosen.storage)
    if folder is not None:
        use_cache(logits, label="teacher", directory=folder, about={}, settings=chosen, epochs=epochs, progress="none")
    return logits


def along_epoch(logits, data, seed, batch_size=STEP):
    plan = data.draw_epoch(torch.Generator().manual_seed(seed))
    logits.start_epoch(plan)
    parts = [data.steps(batch_size).batch(step) for step in range(len(data.steps(batch_size)))]
    return plan, torch.cat([logits.rows(part).clone() for part in parts])


def live(teacher, data, plan, batch_size=STEP):
    steps = range(len(data.steps(batch_size)))
    return torch.cat([teacher(data.batch(plan, step, batch_size).images).logits.float() for step in steps])


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("mode", ["off", "lazy", "fill"])
def test_they_are_the_live_teachers(teacher, data, tmp_path, mode, bfloat16):
    """To rounding: the live one sees batches of another size. Here the difference was 0 in both precisions."""

    def precision():
        return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)

    for _ in range(2):  # computed, and found
        plan, rows = along_epoch(make(teacher, data, tmp_path, mode=mode, precision=precision), data, seed=1)
        with precision():
            expected = live(teacher, data, plan)
        torch.testing.assert_close(rows, expected, rtol=2e-2 if bfloat16 else 1e-5, atol=1e-2 if bfloat16 else 1e-5)
        assert rows.dtype == torch.float32


def test_every_way_gives_the_same_bits(teacher, data, tmp_path, monkeypatch):
    expected = [along_epoch(make(teacher, data, None, mode="off"), data, seed)[1] for seed in range(4)]
    ways = {name: make(teacher, data, tmp_path / name, mode=name) for name in ("lazy", "fill")}
    ways["after another"] = make(teacher, data, tmp_path / "lazy", mode="lazy")
    along_epoch(ways["after another"], data, seed=9)
    monkeypatch.setattr(teacher_logits, "WINDOW", 60)  # not a multiple of the steps' size: they straddle it
    ways["small windows"] = make(teacher, data, tmp_path / "small", mode="lazy")
    for seed in range(4):
        for name, logits in ways.items():
            assert torch.equal(along_epoch(logits, data, seed)[1], expected[seed]), name


def test_what_is_there_is_not_computed_again(teacher, data, tmp_path):
    along_epoch(make(teacher, data, tmp_path, mode="lazy"), data, seed=0)
    again = make(teacher, data, tmp_path, mode="lazy")
    teacher.images = 0
    along_epoch(again, data, seed=0)
    assert teacher.images == 0
    along_epoch(again, data, seed=1)
    assert 0 < teacher.images <= 192  # the new views of 150, in batches of 64


def test_a_full_cache_needs_no_teacher(teacher, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    make(teacher, data, tmp_path, mode="fill")
    assert f"{IMAGES * 50} views in" in caplog.text
    logits = make(teacher, data, tmp_path)
    teacher.images = 0
    for seed in range(5):
        along_epoch(logits, data, seed)
    assert teacher.images == 0


def test_an_interrupted_fill_goes_on(teacher, data, tmp_path, monkeypatch):
    write, calls = teacher_cache.TeacherCache.write, []

    def killed(self, entries, rows):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        write(self, entries, rows)

    monkeypatch.setattr(teacher_cache.TeacherCache, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        make(teacher, data, tmp_path, mode="fill")
    monkeypatch.undo()
    teacher.images = 0
    logits = make(teacher, data, tmp_path, mode="fill")
    assert teacher.images < IMAGES * 50 - 15 * 64
    expected = along_epoch(make(teacher, data, None, mode="off"), data, seed=3)[1]
    assert torch.equal(along_epoch(logits, data, seed=3)[1], expected)


def test_a_fill_stops_with_the_trainings_of_its_process(teacher, data, tmp_path, monkeypatch):
    write, table = teacher_cache.TeacherCache.write, Turns()

    def told_to_stop(self, entries, rows):
        write(self, entries, rows)
        table.signal = signal.SIGTERM

    monkeypatch.setattr(teacher_cache.TeacherCache, "write", told_to_stop)
    with table.seat(), pytest.raises(Interrupted):
        make(teacher, data, tmp_path, mode="fill")
    monkeypatch.undo()
    computed, teacher.images = teacher.images, 0
    make(teacher, data, tmp_path, mode="fill")  # the lock is free
    assert teacher.images == computed + (IMAGES * data.num_views // 64 - 1) * 64


def test_who_waits_for_another_fill_computes_nothing(teacher, data, tmp_path, monkeypatch):
    take_lock, paths = teacher_logits.take_lock, []

    def filled_meanwhile(lock):
        paths.append(lock.lock_file)
        with monkeypatch.context() as other:
            other.setattr(teacher_logits, "take_lock", take_lock)
            make(teacher, data, tmp_path, mode="fill")
        teacher.images = 0
        take_lock(lock)

    monkeypatch.setattr(teacher_logits, "take_lock", filled_meanwhile)
    logits = make(teacher, data, tmp_path, mode="fill")
    assert len(paths) == 1
    assert teacher.images == 0
    assert logits.cache.is_complete


def test_a_teacher_that_looks_at_its_batch_gets_no_cache(teacher, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    make(Centred(teacher), data, tmp_path, mode="fill")
    assert "depend on the batch around it" in caplog.text
    assert not list(tmp_path.iterdir())


def test_other_arithmetic_is_another_cache(teacher, data, tmp_path):
    """Weights and precision are seen in what they compute; nothing has to name them."""
    make(teacher, data, tmp_path, mode="lazy")
    make(teacher, data, tmp_path, mode="lazy", precision=lambda: torch.autocast("cpu", torch.bfloat16))
    with torch.no_grad():
        teacher.network.classifier.bias[3] += 1e-4
    make(teacher, data, tmp_path, mode="lazy")
    assert len(list((tmp_path / "logits").iterdir())) == 3


def test_a_full_disk_ends_the_keeping_and_not_the_training(teacher, data, tmp_path, monkeypatch, caplog):
    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    expected = along_epoch(make(teacher, data, None, mode="off"), data, seed=0)[1]
    logits = make(teacher, data, tmp_path, mode="lazy")
    monkeypatch.setattr(logits.cache, "_file", SimpleNamespace(seek=lambda place: None, write=no_space))
    assert torch.equal(along_epoch(logits, data, seed=0)[1], expected)
    assert "No space left on device" in caplog.text
    assert torch.equal(along_epoch(make(teacher, data, tmp_path, mode="fill"), data, seed=0)[1], expected)


def test_a_folder_that_cannot_be_written_costs_the_cache_only(teacher, data, tmp_path, caplog):
    (tmp_path / "logits").write_text("in the way")
    expected = along_epoch(make(teacher, data, None, mode="off"), data, seed=0)[1]
    assert torch.equal(along_epoch(make(teacher, data, tmp_path, mode="lazy"), data, seed=0)[1], expected)
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("mode", ["off", "lazy"])
def test_float16_rounds_them_cached_or_not(teacher, data, tmp_path, mode):
    exact = along_epoch(make(teacher, data, None, mode="off"), data, seed=0)[1]
    for _ in range(2):
        logits = make(teacher, data, tmp_path, mode=mode, storage="float16")
        assert torch.equal(along_epoch(logits, data, seed=0)[1], exact.half().float())


def test_a_step_may_start_in_the_middle_of_an_epoch(teacher, data, tmp_path):
    plan, rows = along_epoch(make(teacher, data, None, mode="off"), data, seed=0)
    logits = make(teacher, data, tmp_path, mode="lazy")
    logits.start_epoch(plan)
    part = data.steps(STEP).batch(2)
    assert torch.equal(logits.rows(part), rows[part])


def plan_of(epochs, mode="auto", max_gigabytes=4.0, num_views=162):
    return plan_cache(
        settings(mode, max_gigabytes), num_entries=10847 * num_views, num_views=num_views, num_classes=100,
        epochs=epochs,
    )  # fmt: skip


def test_the_choice_is_arithmetic():
    assert plan_of(240).mode == "fill"  # 1 - (161 / 162) ** 240 = 0.774
    assert "240 epochs meet about 77 % of the 1,757,214 crops and flips of the images (716.9 MB)" in plan_of(240).reason
    assert plan_of(200).mode == "lazy"  # 0.710
    assert plan_of(30).mode == "lazy"
    assert plan_of(3, num_views=1).mode == "fill"  # no augmentation: one epoch meets everything
    assert plan_of(240, mode="lazy").mode == "lazy"
    assert plan_of(1, mode="fill").mode == "fill"
    assert plan_of(240, max_gigabytes=0.7).mode == "live"
    assert "0.7 GB, cache.max_gigabytes=0.7" in plan_of(240, max_gigabytes=0.7).reason
    assert plan_of(240, mode="off").mode == "live"


def test_the_expected_share_is_what_draws_meet(data):
    generator, met = torch.Generator().manual_seed(0), [set() for _ in range(IMAGES)]
    for _ in range(40):
        plan = data.draw_epoch(generator)
        for number in data.view_numbers(plan).tolist():
            met[number // data.num_views].add(number)
    share = sum(map(len, met)) / (IMAGES * data.num_views)
    assert share == pytest.approx(teacher_logits.expected_share(data.num_views, 40), abs=0.02)


# ------------------------------------------------------------------------------------------------------- whole runs


def numbers(result):
    return {key: result[key] for key in ("accuracy", "weights_sha256", "hash")}


@pytest.mark.parametrize("mode", ["lazy", "fill", "auto"])
def test_a_cache_changes_no_number_of_a_run(make_config, mode):
    off = make_config("cache.mode=off", "study=off")
    expected = run_experiment(off)
    config = make_config(f"cache.mode={mode}", f"study={mode}")
    for study in (mode, f"{mode}-again"):  # the cache is made, and is used
        assert numbers(run_experiment(make_config(f"cache.mode={mode}", f"study={study}"))) == numbers(expected)
    assert list((teacher_run(config).directory / "logits").glob("*/logits.bin"))
    lines = [(student_run(c).directory / "metrics.jsonl").read_text().splitlines() for c in (off, config)]
    for one, other in zip(*lines, strict=True):
        one, other = json.loads(one), json.loads(other)
        assert one.pop("images_per_second")
        assert other.pop("images_per_second")
        assert one == other


def test_float16_is_part_of_the_identity(make_config):
    half, whole = make_config("cache.storage=float16"), make_config("cache.mode=lazy", "cache.max_gigabytes=1")
    assert student_run(half).hash != student_run(make_config()).hash == student_run(whole).hash
    assert teacher_run(half).hash == teacher_run(make_config()).hash
    without = student_run(make_config("method=ce", "cache.storage=float16"))
    assert without.hash == student_run(make_config("method=ce")).hash
    live = student_run(make_config("method=at", "cache.storage=float16"))
    assert live.hash == student_run(make_config("method=at")).hash


class Kill(BaseException):
    pass


@pytest.mark.parametrize(
    ("mode", "call", "stop"),
    [("fill", 3, "kill"), ("fill", 70, "kill"), ("lazy", 3, "kill"), ("lazy", 9, "kill"), ("lazy", 10, "signal")],
)
def test_resumed_with_a_cache_equals_uninterrupted(make_config, monkeypatch, mode, call, stop):
    """Stopped in the middle of filling, and of an epoch that is partly in the cache."""
    expected = run_experiment(make_config("cache.mode=off", "study=whole"))
    halved = make_config(f"cache.mode={mode}", "study=halved")
    method, calls = method_class("ltkd"), []
    forward, write = method.forward, teacher_cache.TeacherCache.write

    def count():
        calls.append(1)
        if len(calls) == call:
            if stop == "kill":
                raise Kill
            os.kill(os.getpid(), signal.SIGTERM)

    def counting_forward(self, *arguments):
        count()
        return forward(self, *arguments)

    def counting_write(self, *arguments):
        if mode == "fill":
            count()
        write(self, *arguments)

    monkeypatch.setattr(method, "forward", counting_forward)
    monkeypatch.setattr(teacher_cache.TeacherCache, "write", counting_write)
    with pytest.raises((Kill, Interrupted)):
        run_experiment(halved)
    monkeypatch.undo()
    assert numbers(run_experiment(halved)) == numbers(expected)


def test_two_processes_fill_one_cache(make_config, train_command, tmp_path):
    root = f"output_root={tmp_path}/outputs"
    common = ["student=resnet8", "method=kd", "recipe.epochs=4", "wandb.mode=disabled", "run.progress=none"]
    first = ("method=kd", "recipe.epochs=4", "recipe.warmup_epochs=3", "seed=9", root, "cache.mode=off")
    run_experiment(make_config(*first))  # the teacher
    processes = [
        subprocess.Popen(
            [*train_command, *common, f"seed={seed}", "cache.mode=lazy"], stdout=subprocess.DEVNULL,
            cwd=PROJECT,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    assert [process.wait() for process in processes] == [0, 0]
    for seed in (1, 2):
        alone, beside = (
            make_config("method=kd", "recipe.epochs=4", "recipe.warmup_epochs=3", f"seed={seed}", root, *more)
            for more in (["cache.mode=off", "study=alone"], [])
        )
        beside = json.loads((student_run(beside).directory / "result.json").read_text())
        assert numbers(run_experiment(alone)) == numbers(beside)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_logits_in_memory_are_those_of_the_file(data, teacher, tmp_path, monkeypatch, storage):
    from_file = make(teacher, data, tmp_path, mode="fill", storage=storage)
    expected = [along_epoch(from_file, data, seed, batch_size=64)[1] for seed in range(2)]  # the last batch is short
    monkeypatch.setattr(resident_logits, "fits", lambda cache, device: True)
    first, second = (make(teacher, data, tmp_path, mode="fill", storage=storage) for _ in range(2))
    assert first.resident is second.resident is not None
    monkeypatch.setattr(teacher_cache.TeacherCache, "read", None)  # no file is read any more
    found = [along_epoch(first, data, seed, batch_size=64)[1] for seed in range(2)]
    assert all(map(torch.equal, expected, found))
    table = weakref.ref(first.resident)
    del first, second
    gc.collect()
    assert table() is None  # its memory is given back


def test_a_damaged_entry_is_computed_again_and_not_held_in_memory(data, teacher, tmp_path, monkeypatch):
    filled = make(teacher, data, tmp_path, mode="fill")
    expected, file = along_epoch(filled, data, 0)[1], filled.cache.folder / teacher_cache.ENTRIES
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    monkeypatch.setattr(resident_logits, "fits", lambda cache, device: True)
    damaged = make(teacher, data, tmp_path, mode="fill")
    assert damaged.resident is None
    assert torch.equal(along_epoch(damaged, data, 0)[1], expected)
