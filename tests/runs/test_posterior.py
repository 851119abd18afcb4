"""Teachers beside the main one, and the posteriors that are made of them: identity, store, resume, tables."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from ltkd import task_losses as task
from ltkd.config.identity import student_run, teacher_run
from ltkd.config.load import load_config
from ltkd.data import sampling
from ltkd.errors import UserError
from ltkd.loop.trainer import Trainer
from ltkd.methods.base import MethodContext
from ltkd.models import build_model
from ltkd.results.collect import collect
from ltkd.results.summary import summary_rows
from ltkd.runs import swag
from ltkd.runs.build import new_model
from ltkd.runs.run import run_experiment
from ltkd.runs.swag import WeightCollector, draw_weights, refresh_batch_norm, set_weights
from ltkd.runs.teacher_store import find_or_train_teacher
from ltkd.setup import prepare

from ..conftest import compose_values
from .killing import killed_after
from .test_fit import metrics_of, numbers

ENSEMBLE = ["method=bayesian", "method.samples=2"]
SWAG = [*ENSEMBLE, "method.posterior=swag", "method.swag_epochs=3", "method.swag_rank=2"]
DROPOUT = [*ENSEMBLE, "method.posterior=mc_dropout"]
TWO_EPOCHS = ["recipe.epochs=2", "recipe.batch_size=100"]


def teacher_folders(config):
    folders = (teacher_run(config).directory.parents[1]).glob("*/*/result.json")
    return {path.parent: path.stat().st_mtime_ns for path in folders}


# identity and tables


def test_who_the_further_teachers_are_is_part_of_the_identity(make_config):
    hashes = {
        student_run(make_config(*overrides)).hash
        for overrides in (
            ["method=exopd"],
            ["method=exopd", "method.reference=student"],
            ["method=exopd", "method.reference=resnet14"],
            ["method=exopd", "method.reference=student", "+student.recipe.learning_rate=0.01"],
            ENSEMBLE, [*ENSEMBLE, "method.samples=3"], [*ENSEMBLE, "teacher.seed=1"], SWAG,
            [*SWAG, "method.swag_epochs=4"], DROPOUT,
        )
    }  # fmt: skip
    assert len(hashes) == 10
    without = student_run(make_config("method=exopd")).identity
    assert "further_teachers" not in without  # identities of runs without any stay what they were


def test_a_cell_leaves_out_every_teachers_seed_and_nothing_else(make_config):
    def cell(*overrides):
        return student_run(make_config(*ENSEMBLE, *overrides)).cell

    assert cell() == cell("seed=4", "teacher.seed=7")
    assert cell() != cell("method.samples=3")
    assert cell() != cell("teacher=resnet14")
    seeds = [one["seed"] for one in student_run(make_config(*ENSEMBLE, "teacher.seed=7")).identity["further_teachers"]]
    assert seeds == [8]


def test_a_table_keeps_ensembles_of_other_sizes_and_seeds_apart(make_config, tmp_path):
    """What is trained here is too little to learn from: only where the runs go matters."""
    short = ["recipe.epochs=1", "recipe.warmup_epochs=0", "recipe.batch_size=500"]
    for overrides in ([], ["seed=1"], ["method.samples=1"], ["seed=1", "teacher.seed=1"]):
        run_experiment(make_config(*ENSEMBLE, *short, *overrides))
    rows = summary_rows(collect([tmp_path / "outputs" / "main"]).cells, "last")
    students = sorted((row["settings"], row["n"]) for row in rows if row["method"] == "bayesian")
    # seed 1 is there with two ensembles: a row for each; samples=2, as most have it, goes without saying
    assert students == [("samples=1", 1), ("teacher.seed=0", 2), ("teacher.seed=1", 1)]


def test_a_further_teacher_is_written_down_as_what_it_is(make_config):
    config = make_config("method=exopd", "teacher=resnet14", "method.reference=student", *TWO_EPOCHS)
    result = run_experiment(config)
    [reference] = result["further_teacher_results"]
    stored = json.loads((teacher_run(config, config.extra_teachers[0]).directory / "result.json").read_text())
    assert (stored["teacher"], stored["method"], stored["student"]) == ("resnet8", "teacher", None)
    assert stored["hash"] == reference["hash"] != result["teacher_result"]["hash"]
    settings = json.loads((teacher_run(config, config.extra_teachers[0]).directory / "config.json").read_text())
    assert settings["teacher"]["name"] == "resnet8"


# the store


def test_further_teachers_are_trained_once_and_shared(make_config):
    run_experiment(make_config("method=kd", "teacher.seed=1", *TWO_EPOCHS))
    [first] = teacher_folders(make_config())
    config = make_config(*ENSEMBLE, *TWO_EPOCHS)
    run_experiment(config)
    after = teacher_folders(config)
    assert len(after) == 2  # seed 0, and seed 1 of the other run
    assert first in after
    run_experiment(make_config(*ENSEMBLE, *TWO_EPOCHS, "seed=5"))
    run_experiment(make_config("method=exopd", "method.reference=student", *TWO_EPOCHS))
    assert teacher_folders(config) == after  # here teacher and student are the same network


def test_the_ensembles_logits_are_those_of_its_members(make_config, monkeypatch):
    from ltkd.methods.bayesian import BayesianTeacher

    seen = {}
    distill = BayesianTeacher.distill

    def watch(self, student, teacher, batch):
        if not seen:
            seen.update(images=batch.images.clone(), logits=self._logit_samples(teacher, batch).clone())
        return distill(self, student, teacher, batch)

    monkeypatch.setattr(BayesianTeacher, "distill", watch)
    config = make_config(*ENSEMBLE, *TWO_EPOCHS)
    run_experiment(config)
    setup = prepare(config)
    for teacher, logits in zip([config.teacher, *config.extra_teachers], seen["logits"], strict=True):
        with torch.no_grad():
            expected = find_or_train_teacher(setup, teacher).model(seen["images"]).logits
        torch.testing.assert_close(logits, expected)
    assert not torch.equal(seen["logits"][0], seen["logits"][1])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=exopd", "method.reference=resnet9"], r"method.reference: unknown name 'resnet9'"),
        ([*SWAG, "method.swag_epochs=null"], "method.swag_epochs: is needed with method.posterior=swag"),
    ],
)
def test_what_does_not_fit_is_said_with_the_configuration(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(compose_values("device=cpu", *overrides))


# SWAG


class Weights(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(3, 2))
        self.b = nn.Parameter(torch.zeros(4))


def collected(trajectory, rank, path):
    model = Weights()
    context = MethodContext(2, torch.tensor([1, 1]), torch.tensor([0, 0]), ["all"], len(trajectory), 2)
    collector = WeightCollector(
        context, task.build_task_loss("ce", context.class_counts), model,
        swag.Swag(epochs=len(trajectory), learning_rate=0.1, rank=rank, sample=None), path,
    )  # fmt: skip
    for weights in trajectory:
        set_weights(model, weights)
        collector.end_epoch(model)
    return collector


@pytest.mark.parametrize("rank", [2, 3, 5, 8])
def test_swag_moments_are_those_of_the_trajectory(tmp_path, rank):
    trajectory = torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    statistics = collected(trajectory, rank, tmp_path / "swag.ckpt").statistics()
    torch.testing.assert_close(statistics["mean"], trajectory.mean(0))
    torch.testing.assert_close(statistics["variance"], trajectory.square().mean(0) - trajectory.mean(0).square())
    running = torch.stack([trajectory[i] - trajectory[: i + 1].mean(0) for i in range(5)])
    columns = min(rank, 5)
    assert statistics["deviations"].shape == (columns, 10)
    by_row = sorted(statistics["deviations"].tolist())  # kept in a ring: their order has no meaning
    torch.testing.assert_close(torch.tensor(by_row), torch.tensor(sorted(running[-columns:].tolist())))


def test_swag_samples_have_the_gaussians_moments(tmp_path):
    trajectory = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    statistics = collected(trajectory, 4, tmp_path / "swag.ckpt").statistics()
    generator, draws = torch.Generator().manual_seed(1), 40_000
    samples = torch.stack([draw_weights(statistics, generator) for _ in range(draws)])
    deviations = statistics["deviations"]
    covariance = statistics["variance"].diag() / 2 + deviations.T @ deviations / (2 * 3)
    scale = covariance.diag().sqrt()
    torch.testing.assert_close(samples.mean(0) / scale, statistics["mean"] / scale, atol=5 / draws**0.5, rtol=0)
    correlation = covariance / scale / scale.unsqueeze(1)
    torch.testing.assert_close(samples.T.cov() / scale / scale.unsqueeze(1), correlation, atol=0.035, rtol=0)


def test_weights_go_in_and_come_out_whatever_their_memory_format(tmp_path):
    model = build_model("resnet8", num_classes=10, in_channels=1).to(memory_format=torch.channels_last)
    weights = torch.randn(sum(p.numel() for p in model.parameters()))
    before = [p.stride() for p in model.parameters()]
    set_weights(model, weights)
    assert [p.stride() for p in model.parameters()] == before
    assert torch.equal(torch.cat([p.reshape(-1) for p in model.parameters()]), weights)


def test_refreshed_batch_norm_has_the_statistics_of_the_training_images(make_config):
    config = make_config("dataset.crop_padding=0")  # no augmentation: the images are known
    setup = prepare(config)
    model = new_model(setup, config.teacher, 0)
    first = model.stem_norm
    first.running_mean.fill_(7.0)
    refresh_batch_norm(
        setup, model, replace(config.recipe, batch_size=len(setup.train)), torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        maps = model.stem(next(setup.train.evaluation_batches(len(setup.train))).images)
    torch.testing.assert_close(first.running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, maps.var((0, 2, 3)))
    assert first.momentum == 0.1
    assert all(module.training for module in model.modules())  # as before


def test_swag_is_collected_once_and_its_samples_are_teachers(make_config):
    config = make_config(*SWAG, *TWO_EPOCHS)
    result = run_experiment(config)
    base, posterior = teacher_run(config), config.extra_teachers[0]
    folders = teacher_folders(config)
    assert len(folders) == 4  # the teacher, the collection, two samples
    assert base.directory in folders
    accuracies = [one["accuracy"]["last"]["all"] for one in result["further_teacher_results"]]
    assert len({one["hash"] for one in result["further_teacher_results"]}) == 2

    setup = prepare(config)
    samples = [find_or_train_teacher(setup, one) for one in config.extra_teachers]
    teacher = find_or_train_teacher(setup)
    images = next(setup.test.evaluation_batches(200)).images
    with torch.no_grad():
        logits = [one.model(images).logits for one in (teacher, *samples)]
    assert not torch.equal(logits[1], logits[2])
    assert not torch.equal(logits[0], logits[1])
    for sample, accuracy in zip(samples, accuracies, strict=True):
        assert sample.result["accuracy"]["last"]["all"] == accuracy
        assert not sample.model.training
    assert teacher_folders(config) == folders  # found, not trained again

    run_experiment(make_config(*SWAG, *TWO_EPOCHS, "seed=3"))
    assert teacher_folders(config) == folders
    assert posterior.swag.sample == 0


def collection_of(config):
    [teacher, *_] = config.extra_teachers
    return teacher_run(config, replace(teacher, swag=replace(teacher.swag, sample=None)))


def test_an_interrupted_collection_goes_on_to_the_same_samples(make_config, tmp_path, monkeypatch):
    expected = run_experiment(make_config(*SWAG, *TWO_EPOCHS, f"output_root={tmp_path}/other"))
    config = make_config(*SWAG, *TWO_EPOCHS)
    end_epoch, calls = WeightCollector.end_epoch, []

    def stop_in_the_last_epoch(self, model):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        end_epoch(self, model)

    monkeypatch.setattr(WeightCollector, "end_epoch", stop_in_the_last_epoch)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config)
    monkeypatch.setattr(WeightCollector, "end_epoch", end_epoch)
    assert not collection_of(config).files.swag.exists()
    resumed = run_experiment(config)
    assert numbers(resumed) == numbers(expected)
    accuracies = [[one["accuracy"] for one in r["further_teacher_results"]] for r in (resumed, expected)]
    assert accuracies[0] == accuracies[1]
    assert len(metrics_of(collection_of(config).directory)) == 3


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_posterior_is_not_drawn_from(make_config, damage):
    config = make_config(*SWAG, *TWO_EPOCHS)
    run_experiment(config)
    path = collection_of(config).files.swag
    if damage == "missing":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-200] ^= 1
        path.write_bytes(content)
    run_experiment(make_config(*SWAG, *TWO_EPOCHS, "seed=1"))  # the samples are there
    with pytest.raises(UserError, match="Delete the whole folder"):
        run_experiment(make_config(*SWAG, *TWO_EPOCHS, "method.samples=3"))


def test_swag_around_a_teacher_from_a_file(make_config, tmp_path):
    trained = make_config("method=kd", *TWO_EPOCHS)
    run_experiment(trained)
    weights = teacher_run(trained).directory / "weights.safetensors"
    result = run_experiment(make_config(*SWAG, *TWO_EPOCHS, f"teacher.checkpoint={weights}", "study=file"))
    assert len(result["further_teacher_results"]) == 2


def test_swag_around_a_file_is_another_for_what_it_is_trained_on_with(make_config, tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"any")
    common = [*SWAG, f"teacher.checkpoint={weights}"]
    changes = [
        [], ["++teacher.recipe.momentum=0.8"], ["teacher.task_loss=balanced_softmax"], ["run.step=compile"],
        ["teacher.seed=1"],
    ]  # fmt: skip
    configs = [make_config(*common, *change) for change in changes]
    assert len({teacher_run(config, config.extra_teachers[0]).hash for config in configs}) == len(changes)
    assert len({student_run(config).hash for config in configs}) == len(changes)
    assert len({student_run(config).cell for config in configs}) == len(changes) - 1  # but for the seed


def test_a_teacher_from_a_file_is_another_with_another_scale_of_its_logits(make_config, tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"any")
    ldam = "{name: ldam, scale: 15}"
    runs = [
        student_run(make_config("method=kd", f"teacher.checkpoint={weights}", *change))
        for change in ([], ["teacher.task_loss=ldam"], [f"teacher.task_loss={ldam}"])
    ]
    assert len({run.hash for run in runs}) == 3
    assert "task_loss" not in runs[0].identity["teacher"]  # identities of before stay what they were


def test_a_collection_goes_on_where_the_training_ended(make_config, monkeypatch):
    ldam = "{name: ldam, beta: 0.99}"
    config = make_config(*SWAG, *TWO_EPOCHS, f"teacher.task_loss={ldam}", "++teacher.recipe.sampling=progressive")
    betas, samplers, collected = [], [], WeightCollector.end_epoch

    def watched(self, model):
        betas.append(self.task_loss.current_beta.item())
        collected(self, model)

    monkeypatch.setattr(WeightCollector, "end_epoch", watched)
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self: samplers.append(self.training.sampler) or fit(self))
    find_or_train_teacher(prepare(config), config.extra_teachers[0])
    assert betas == [0.99] * 3  # weights deferred to 0.8 of all epochs are in force
    assert [type(one) for one in samplers[:2]] == [sampling.Progressive, sampling.ClassBalanced]


# randomness


@pytest.mark.parametrize(
    "overrides",
    [
        DROPOUT,
        ["method=mixkd"],
        ["method=mixkd", "method.partner=class_balanced", "method.distance=kl", "method.kd_weight=1"],
        ["method=skd", "method.proposal=sampled", "method.variant=curriculum"],
        ["method=ckd", "method.group_size=3", "method.label_weight=1", "method.task_weight=0"],
        ["method=exopd", "method.reference=student", "method.divergence=forward"],
        ["method=kdiga", "method.norm=squared"],
    ],
    ids=" ".join,
)
def test_variants_end_and_resume_to_the_same_bit(make_config, overrides):
    whole, halved = (make_config(*overrides, *TWO_EPOCHS, f"study={study}") for study in ("whole", "halved"))
    expected = run_experiment(whole)
    with killed_after(1):
        run_experiment(halved)
    torch.manual_seed(12345)
    assert numbers(run_experiment(halved)) == numbers(expected)
    assert metrics_of(student_run(halved).directory) == metrics_of(student_run(whole).directory)


def test_the_rates_of_acceptance_and_the_modules_accuracy_are_in_the_metrics(make_config):
    for method, figure in (("skd", "accepted"), ("okd", "module_accuracy")):
        config = make_config(f"method={method}", *TWO_EPOCHS)
        run_experiment(config)
        for line in metrics_of(student_run(config).directory):
            for key in (f"train/{figure}", *(f"train/{figure}/{group}" for group in ("head", "medium", "tail"))):
                assert 0 <= line[key] <= (1 if method == "skd" else 100)
