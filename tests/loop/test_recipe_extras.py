"""The optimizers, the average of the weights, SAM and the accumulation of gradients."""

import copy
import os
import signal

import pytest
import torch
from torch import nn

from ltkd import losses
from ltkd.config.identity import student_run, teacher_run
from ltkd.data import Batch
from ltkd.errors import UserError
from ltkd.loop.interrupt import Interrupted
from ltkd.loop.sharpness import sharpness_aware_gradient
from ltkd.loop.step import Step, make_optimizer
from ltkd.models import load_weights
from ltkd.optimization.averaging import ExponentialAverage
from ltkd.optimization.optimizers import load_state, make_state
from ltkd.runs.build import new_model
from ltkd.runs.run import run_experiment
from ltkd.setup import prepare

from ..runs.test_fit import metrics_of, numbers
from .test_step import start, training_of

EXTRAS = {
    "adamw": "recipe.optimizer={name:adamw,beta2:0.99}",
    "ema": "recipe.average={name:ema,decay:0.9}",
    "sam": "recipe.sam=0.1",
    "accumulation": "recipe.accumulation=3",
    "label_smoothing": "student.task_loss={name:ce,label_smoothing:0.1}",
}


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_is_resumed_in_the_middle_of_an_epoch_to_the_same_bit(make_config, monkeypatch, name):
    choice = ("method=ce", "dataset.validation_per_class=2", EXTRAS[name])
    expected = run_experiment(make_config(*choice, "study=whole"))
    update, calls = Step.update, []

    def stop_at_the_tenth(self, given):
        calls.append(1)
        if len(calls) == 10:  # 7 steps an epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, given)

    monkeypatch.setattr(Step, "update", stop_at_the_tenth)
    halved = make_config(*choice, "study=halved")
    with pytest.raises(Interrupted):
        run_experiment(halved)
    monkeypatch.undo()
    torch.manual_seed(98765)
    assert numbers(run_experiment(halved)) == numbers(expected)
    directories = [student_run(make_config(*choice, f"study={study}")).directory for study in ("whole", "halved")]
    assert metrics_of(directories[0]) == metrics_of(directories[1])
    plain = run_experiment(make_config("method=ce", "dataset.validation_per_class=2"))
    assert plain["weights_sha256"] != expected["weights_sha256"]


def test_every_extra_is_part_of_the_identity_unless_it_is_as_without_it(make_config):
    plain = make_config()
    defaults = ("recipe.optimizer=sgd", "recipe.average=none", "recipe.sam=0.0", "recipe.accumulation=1")
    named = make_config(*defaults, "student.task_loss={name:ce,label_smoothing:0.0}")
    assert student_run(named).identity == student_run(plain).identity
    assert not {"optimizer", "average", "sam", "accumulation"} & student_run(plain).identity["recipe"].keys()
    hashes = {student_run(make_config(choice)).hash for choice in EXTRAS.values()}
    assert len(hashes | {student_run(plain).hash}) == 1 + len(EXTRAS)
    one = make_config("++student.recipe.average=ema")
    assert student_run(one).identity["recipe"]["average"] == "ema"
    assert teacher_run(one).hash == teacher_run(plain).hash


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("recipe.optimizer=adam", "recipe.optimizer: unknown name 'adam'"),
        ("recipe.optimizer={name:adamw,beta3:0.1}", "recipe.optimizer.beta3: unknown key"),
        ("recipe.average=swa", "recipe.average: unknown name 'swa'"),
        ("recipe.average={name:ema,decay:1.0}", "recipe.average.decay: should be less than 1"),
        ("recipe.optimizer=adamw recipe.nesterov=true", "recipe.nesterov: belongs to sgd"),
        ("recipe.sam=-0.1", "recipe.sam: should be greater than or equal to 0"),
        ("recipe.accumulation=0", "recipe.accumulation: should be greater than or equal to 1"),
    ],
)
def test_a_wrong_extra_is_one_message(make_config, setting, said):
    with pytest.raises(UserError, match=said):
        make_config(*setting.split(" "))


# ---------------------------------------------------------------------------------------------------------- optimizers


def three_steps(*, state_first, zero_state=torch.optim.AdamW):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 2))
    optimizer = zero_state([weight], lr=0.1, **({} if zero_state is torch.optim.AdamW else {"momentum": 0.9}))
    if state_first:
        make_state(optimizer)
    for _ in range(3):
        weight.grad = torch.randn(3, 2)
        optimizer.step()
    return weight


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_state_that_is_made_ahead_leaves_the_steps_as_they_are(kind):
    assert torch.equal(three_steps(state_first=True, zero_state=kind), three_steps(state_first=False, zero_state=kind))


def test_a_state_of_another_device_keeps_this_devices_kind_of_step():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    make_state(optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0] |= {"fused": True, "capturable": True}
    load_state(optimizer, saved)
    assert (optimizer.param_groups[0]["fused"], optimizer.param_groups[0]["capturable"]) == (None, False)
    assert saved["param_groups"][0]["fused"]


# --------------------------------------------------------------------------------------------------------- the average


def test_the_average_is_its_recursion_and_stands_in_for_the_network():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average, expected = ExponentialAverage(network, decay=0.4), network[0].weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            network[0].weight.copy_(torch.randn(2, 3))
            network[1].running_mean.add_(1)
        average.update()
        share = min(0.4, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * network[0].weight.detach()
    latest, mean = network[0].weight.detach().clone(), network[1].running_mean.clone()
    with average.applied():
        torch.testing.assert_close(network[0].weight.detach(), expected)
        assert (network[1].running_mean < mean).all()
    assert torch.equal(network[0].weight, latest)
    assert torch.equal(network[1].running_mean, mean)


def test_the_averaged_network_is_evaluated_and_deployed(make_config):
    config = make_config("method=ce", "recipe.average={name:ema,decay:0.99}")
    plain, result = run_experiment(make_config("method=ce")), run_experiment(config)
    losses_of = [
        [line["train/loss"] for line in metrics_of(student_run(one).directory)]
        for one in (make_config("method=ce"), config)
    ]
    assert losses_of[0] == losses_of[1]  # the training is the same
    assert plain["weights_sha256"] != result["weights_sha256"]
    setup, run = prepare(config), student_run(config)
    model = new_model(setup, run.network, run.seed).eval()
    load_weights(model, run.directory / "weights.safetensors")
    logits = torch.cat([model(batch.images).logits for batch in setup.test.evaluation_batches()])
    accuracy = 100 * (logits.argmax(1) == setup.test.labels).float().mean().item()
    assert accuracy == pytest.approx(result["accuracy"]["last"]["all"], abs=1e-3)


# -------------------------------------------------------------------------------------------------------------- SAM


def test_sam_is_its_reference():
    generator = torch.Generator().manual_seed(0)
    images, weight = torch.randn(8, 3, generator=generator).double(), torch.randn(4, 3, generator=generator).double()
    target, settings = torch.arange(8) % 4, {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}
    layer = nn.Linear(3, 4, bias=False).double()
    layer.weight.data.copy_(weight)
    optimizer = torch.optim.SGD(layer.parameters(), **settings)
    for _ in range(3):
        optimizer.zero_grad()
        sharpness_aware_gradient(
            lambda: losses.cross_entropy(layer(images), target).backward(), optimizer, [layer], radius=0.5
        )
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), losses.sam(images, target, weight, rho=0.5, steps=3, **settings))


def test_both_passes_of_sam_draw_alike_and_the_first_alone_changes_buffers():
    torch.manual_seed(0)
    below, layer, seen = nn.Linear(3, 3), nn.BatchNorm1d(3), []  # what is below moves in the second pass, and its mean
    optimizer = torch.optim.SGD([*below.parameters(), *layer.parameters()], lr=0.1)
    images = torch.randn(5, 3)
    mean = below(images).mean(0).detach()

    def differentiate():
        seen.append((torch.rand(1), layer.running_mean.clone(), layer.weight.detach().clone()))
        (layer(below(images)) - images).square().mean().backward()
        return len(seen)

    assert sharpness_aware_gradient(differentiate, optimizer, [below, layer], radius=0.5) == 1
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])
    assert (seen[1][2] - seen[0][2]).norm() > 0.01
    assert torch.equal(layer.weight.detach(), seen[0][2])
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    assert layer.num_batches_tracked == 1


# ------------------------------------------------------------------------------------------------------- accumulation


def test_accumulated_gradients_are_those_of_the_whole_batch(make_config):
    """With batch normalisation in eval mode, for the logits' terms; the 417 images end in a batch of 17."""
    weights, sums = [], []
    for parts in (1, 3):
        training = training_of(
            make_config("method=kd", "recipe.batch_size=100", f"++student.recipe.accumulation={parts}")
        )
        step = start(Step(training, make_optimizer(training)), training)
        training.model.eval()
        for number in range(5):
            step.run(number)
        weights.append(training.model.state_dict())
        sums.append(step.totals.sums())
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-3, atol=1e-5)
    for key, value in sums[0].items():
        torch.testing.assert_close(sums[1][key], value, rtol=1e-3, atol=0.5 if key == "accuracy" else 1e-3)


@pytest.mark.parametrize(("images", "parts", "sizes"), [(10, 3, [3, 3, 4]), (5, 4, [2, 3]), (3, 8, [3]), (6, 1, [6])])
def test_parts_of_a_batch_have_two_images_at_least(images, parts, sizes):
    rows = torch.arange(images)
    batch = Batch(rows.float(), rows, rows, teacher_logits=rows.float(), extra_logits=(rows.float(),))
    cut = batch.parts(parts)
    assert [len(part.labels) for part in cut] == sizes
    for pieces in ([p.labels for p in cut], [p.teacher_logits for p in cut], [p.extra_logits[0] for p in cut]):
        assert torch.cat(pieces).tolist() == rows.tolist()
    assert all(part.second_view is None and part.partner_labels is None for part in cut)
