"""The benchmark measures what it says. No test here looks at a time."""

import dataclasses
import itertools
import json
import multiprocessing
import sys

import pytest
import torch

from ltkd.benchmark import (
    Measurement,
    Variant,
    as_json,
    count_operations,
    loops,
    markdown,
    measure,
    scaling_variants,
    standard_variants,
)
from ltkd.benchmark.images import Kind, images_table, measure_images
from ltkd.benchmark.loops import EngineLoop, LoopsTogether, PlainLoop, peak_flops
from ltkd.errors import UserError
from ltkd.loop.turns import turns
from ltkd.models import build_model

from ..conftest import PROJECT

sys.path.insert(0, str(PROJECT / "scripts"))
import benchmark


def names(variants):
    return [variant.name for variant in variants]


def test_features_are_added_one_by_one(make_config):
    ltkd, feature = make_config(), make_config("method=at")
    assert names(standard_variants(ltkd, False, 2)) == [
        "plain loop", "engine", "+ bfloat16", "+ teacher cache", "+ torch.compile", "+ 2 jobs side by side",
    ]  # fmt: skip
    assert "+ teacher cache" not in names(standard_variants(feature, False, 1))
    assert names(standard_variants(ltkd, True, 1))[1:] == [
        "engine", "+ TF32", "+ bfloat16", "+ CUDA graph", "+ teacher cache", "+ torch.compile",
    ]  # fmt: skip
    assert [variant.together for variant in standard_variants(ltkd, True, 3)[-3:]] == [False, True, False]
    settings = [dict(o.split("=") for o in v.overrides) for v in standard_variants(ltkd, True, 1)[1:]]
    for before, after in itertools.pairwise(settings):
        assert sum(before[key] != after[key] for key in before if key != "cache.max_gigabytes") == 1


def test_the_operations_of_a_step_are_counted_without_views(make_config):
    counts = count_operations(make_config("method=kd", "precision.autocast=bfloat16"))
    student = build_model("resnet8", num_classes=10, in_channels=1)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in student.modules())
    assert counts["convolution"] == counts["convolution_backward"] == convolutions  # the teacher's are not run
    assert counts["_fused_sgd_"] == 1
    assert not counts.keys() & {"view", "t", "detach", "add_.Tensor", "mul_"}


def test_scaling_varies_one_thing_at_a_time(make_config):
    variants = scaling_variants(make_config(), False, 4)
    assert names(variants)[-3:] == ["1 job", "2 jobs", "4 jobs"]
    assert any(v.made_up and "dataset.num_classes=1000" in v.overrides for v in variants)


def test_loops_together_do_the_steps_of_each(make_config, tmp_path):
    config, made = make_config("run.step=eager"), []

    def make():
        made.append(EngineLoop(config, tmp_path))
        return made[-1]

    alone, together = EngineLoop(config, tmp_path), LoopsTogether(3, make)
    for loop in (alone, together):
        loop.run(2)
    for loop in made:
        pairs = zip(alone._training.model.parameters(), loop._training.model.parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    assert len(made) == 3


def test_loops_together_do_not_hold_each_other_up_to_wait_for_the_device(make_config, tmp_path, monkeypatch):
    seats = []
    monkeypatch.setattr(loops, "_wait", lambda device: seats.append(len(turns())))
    together = LoopsTogether(2, lambda: EngineLoop(make_config("run.step=eager", "method=ce"), tmp_path))
    together.run(2)
    assert seats[0] == seats[-1] == 0  # before the first begins and after the last ends
    assert max(seats) < 2


@pytest.mark.parametrize("loop", [PlainLoop, EngineLoop])
def test_both_loops_train(make_config, tmp_path, loop):
    config = make_config("recipe.batch_size=64", "cache.mode=lazy")
    training = loop(config, tmp_path)
    network = training._student if loop is PlainLoop else training._training.model
    before = [parameter.detach().clone() for parameter in network.parameters()]
    assert training.run(2) > 0
    assert all(not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))


def test_the_plain_loop_sees_the_images_as_the_engine_normalises_them(make_config, tmp_path):
    loop = PlainLoop(make_config("dataset.crop_padding=0"), tmp_path)
    images, labels, index = next(loop._batches)
    from ltkd.setup import prepare

    train = prepare(make_config("dataset.crop_padding=0")).train
    expected = torch.cat([batch.images for batch in train.evaluation_batches(100)])
    torch.testing.assert_close(images, expected[index], rtol=1e-5, atol=1e-6)
    assert torch.equal(labels, train.labels[index])


def measurement(name, speed, operations, fill=None):
    return Measurement(name, 1, 64, speed, (speed, speed), 64e3 / speed, operations, 1e9, 0.5, fill)


def test_table_has_ratios_share_of_peak_and_what_the_cache_costs(make_config):
    config = make_config("run.evaluate_every=5")
    rows = [measurement("plain loop", 100.0, 4_000_000), measurement("engine", 250.0, 4_000_000),
            measurement("+ teacher cache", 500.0, 1_000_000, fill=1000.0)]  # fmt: skip
    beside = {"evaluation": 6.0, "saving": 1.0, "logging": 0.1}
    rows[2] = dataclasses.replace(rows[2], between_epochs=beside)
    text = markdown("title", rows, config, 162, 10_000)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert lines[2] == ["plain loop", "100", "1.00", "640.00", "40.0 %", "0.50"]
    assert lines[3][2:5] == ["2.50", "256.00", "100.0 %"]
    # 1,620,000 views at 1,000/s; an epoch of 10,000 images takes 40 s without and 20 s with it
    assert "in 1,620 s" in text
    assert "An epoch takes 20.0 s less" in text
    assert "paid after 81 epochs" in text
    # beside 5 epochs of 20 s: one evaluation; in each, saving is cut to 2 % of 20 s
    assert "an evaluation 6.000 s, every 5 epochs; saving 1.000 s, for at most 2 % of the time" in text
    assert "Together 7.8 % of a run." in text  # (6 / 5 + .4 + .1) / (20 + 1.7)
    written = as_json(rows, config, ["device=cpu"], 20, 3)
    assert json.loads(json.dumps(written))["rows"][2]["share_of_peak"] == pytest.approx(0.5)


@pytest.mark.parametrize("tf32", [False, True])
def test_the_peak_is_that_of_the_format_that_convolutions_compute_in(monkeypatch, tf32):
    products, found = torch.backends.cuda.matmul, []
    before = products.allow_tf32
    monkeypatch.setattr(loops, "_product_seconds", lambda *how: found.append(products.allow_tf32) or 1.0)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)  # as the plain loop sets it on a GPU
    peak_flops(torch.device("cpu"), torch.float32)
    assert set(found) == {tf32}
    assert products.allow_tf32 == before


TOO_LARGE = "recipe.batch_size: 4096 images are more than the 417 to train on"


def test_variants_are_measured_in_processes_of_their_own(make_config, tmp_path, monkeypatch):
    # threads that share a busy core wait for each other; the module, since the package has a function of that name
    monkeypatch.setattr(sys.modules["ltkd.benchmark.measure"], "num_cores", lambda: 1)
    overrides = ["teacher=resnet8", "student=resnet8", "device=cpu", "recipe.batch_size=4"]
    names = ("plain loop", "engine", "+ teacher cache")
    broken = Variant("broken", ("recipe.batch_size=4096",), jobs=2)
    variants = [broken] + [  # bfloat16 takes a minute where the processor has no instructions for it
        dataclasses.replace(variant, overrides=tuple(one for one in variant.overrides if "bfloat16" not in one))
        for variant in standard_variants(make_config(), False, 1)
        if variant.name in names
    ]
    said = []
    rows = measure(variants, overrides, steps=2, rounds=1, folder=tmp_path, say=said.append)
    assert said[:2] == ["preparing: broken", f"left out: benchmark: broken: {TOO_LARGE}"]
    assert multiprocessing.active_children() == []
    assert [row.name for row in rows] == list(names)
    assert all(row.images_per_second > 0 for row in rows)
    assert all(row.gigabytes > 0.01 for row in rows)
    assert rows[0].between_epochs is None
    assert all(min(row.between_epochs.values()) > 0 for row in rows[1:])
    assert rows[0].operations_per_image == 4 / 3 * rows[2].operations_per_image  # the teacher is as large here
    assert said[-1] == "round 1 of 1"


def test_a_variant_that_cannot_be_built_is_named(tmp_path):
    with pytest.raises(UserError, match=f"broken: {TOO_LARGE}"):
        measure([Variant("broken", ("recipe.batch_size=4096",))], [], steps=1, rounds=1, folder=tmp_path, say=print)


def test_bad_settings_are_one_message(capsys):
    assert benchmark.main(["steps=0"]) == 2
    assert "steps: should be a whole number" in capsys.readouterr().err


def test_a_method_that_the_plain_loop_cannot_run_is_refused(make_config, tmp_path):
    with pytest.raises(UserError, match="does not know how to run mlkd"):
        PlainLoop(make_config("method=mlkd"), tmp_path)


def test_streamed_images_are_measured_against_a_plain_loop(make_config, tmp_path):
    kinds = [Kind(16, (16, 16), "crop_flip"), Kind(16, (30, 20), "resized_crop_flip")]
    config = make_config("recipe.batch_size=4")
    measure = {"workers": 0, "steps": 3, "rounds": 1, "folder": tmp_path / "files", "say": lambda text: None}
    rows = [row for kind in kinds for row in measure_images(config, **measure, kinds=[kind])]
    assert [row.name for row in rows] == ["ImageFolder + DataLoader", "stream"] * 2
    assert all(0 < row.waiting_share < 1 and row.images_per_second > 0 for row in rows)
    lines = images_table(rows[:2], "title").splitlines()
    ratio = rows[1].images_per_second / rows[0].images_per_second
    assert [cell.strip() for cell in lines[5].split("|")][3] == f"{ratio:.2f}"
