"""The logit methods: their terms from the losses, what changes by epoch, what is learnt, what is logged."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ltkd import losses
from ltkd.config.load import load_config
from ltkd.data import Batch
from ltkd.errors import UserError
from ltkd.methods import Networks
from ltkd.models.output import ModelOutput

from ..conftest import compose_values
from .problem import make_problem
from .test_methods import from_yaml

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "logit.json").read_text())
CASES = {case["name"]: case for case in GOLDEN["cases"]}


def golden(name):
    """The case of that name and its inputs by argument."""
    case = CASES[name]
    inputs = {argument: GOLDEN["inputs"][key] for argument, key in case["inputs"].items()}
    exact = {argument: None if argument == "target" else torch.float64 for argument in inputs}
    return case, {argument: torch.tensor(values, dtype=exact[argument]) for argument, values in inputs.items()}


def gradient(value, variable):
    return torch.autograd.grad(value, variable, retain_graph=True)[0]


def z(logits):
    return losses.standardize(logits)


def lskd_dkd(s, t, y, n):
    target, nontarget = losses.dkd_terms(z(s), z(t), y, temperature=2.0)
    return {"dkd_target": 9 * target, "dkd_nontarget": 18 * nontarget}


def cmkd(s, t, difficulty):
    return {"cmkd": 32 * losses.correlation_matching(s, t, difficulty, temperature=4.0, rank_strength=2.0)}


def abkd(s, t, **settings):
    return {"abkd": 32 * losses.alpha_beta_divergence(s, t, alpha=0.8, beta=0.3, **settings)}


def rlkd(s, t, kd, k):
    return {"ranking": 2 * losses.ranking_loss(s, t, k=k, strength=1.0), "kd": kd}


# method: (its settings where they are not the defaults, its terms from the logits s and t, the labels y, the counts n)
TERMS = [
    ("nkd", {}, lambda s, t, y, n: {"nkd": losses.nkd(s, t, y, gamma=3.5, temperature=3.0)}),
    ("wsl", {}, lambda s, t, y, n: {"wsl": losses.weighted_soft_labels(s, t, y, weight=2.25, temperature=4.0)}),
    ("lskd_kd", {}, lambda s, t, y, n: {"kd": 9 * losses.kd(z(s), z(t), temperature=2.0)}),
    ("lskd_dkd", {"warmup_fraction": 0.0}, lskd_dkd),
    ("bkd", {}, lambda s, t, y, n: {
        "balanced_kd": losses.balanced_kd(s, t, n, temperature=2.0, effective_number_beta=0.9999)
    }),
    ("dive", {}, lambda s, t, y, n: {"dive": 0.5 * losses.dive(s, t, temperature=2.0, power=0.5)}),
    ("abkd", {}, lambda s, t, y, n: abkd(s, t, temperature=4.0)),
    ("abkd", {"standardized": True, "temperature": 2.0}, lambda s, t, y, n: abkd(z(s), z(t), temperature=2.0)),
    ("redistill", {}, lambda s, t, y, n: {
        "redistill": 0.9 * 16 * losses.power_divergence(s, t, power=2 / 3, temperature=4.0)
    }),
    ("redistill", {"teacher_first": False}, lambda s, t, y, n: {
        "redistill": 0.9 * 16 * losses.power_divergence(s, t, power=2 / 3, temperature=4.0, teacher_first=False)
    }),
    ("dist", {}, lambda s, t, y, n: {
        "dist_inter": losses.dist(s, t, beta=2.0, gamma=0.0, temperature=4.0),
        "dist_intra": losses.dist(s, t, beta=0.0, gamma=2.0, temperature=4.0),
    }),
    ("cmkd", {}, lambda s, t, y, n: cmkd(s, t, losses.normalized_entropy(t, temperature=4.0))),
    ("cmkd", {"difficulty": 0.25}, lambda s, t, y, n: cmkd(s, t, torch.full((8,), 0.25))),
    ("rlkd", {}, lambda s, t, y, n: rlkd(s, t, losses.kd(s, t, temperature=1.0), k=5)),
    ("rlkd", {"dynamic": True, "k": 2}, lambda s, t, y, n: rlkd(
        s, t, losses.overlap_weighted_kd(s, t, k=2, temperature=1.0), k=2
    )),
]  # fmt: skip


@pytest.mark.parametrize(("name", "overrides", "terms"), TERMS)
def test_terms_with_the_default_settings(context, outputs, name, overrides, terms):
    student, teacher, batch = outputs
    method = from_yaml(name, context, task_weight=0.3, **overrides)
    expected = terms(student.logits, teacher.logits, batch.labels, context.class_counts)
    expected["task"] = 0.3 * losses.cross_entropy(student.logits, batch.labels)
    torch.testing.assert_close(method(student, teacher, batch), expected)
    assert not method.state_dict()


@pytest.mark.parametrize("name", ["wsl", "cmkd"])
def test_the_weight_of_each_image_is_recorded(context, outputs, name):
    student, teacher, batch = outputs
    method = from_yaml(name, context)
    method(*outputs)
    expected = {
        "wsl": ("soft_label_weight", losses.soft_label_weights(student.logits, teacher.logits, batch.labels)),
        "cmkd": ("difficulty", losses.normalized_entropy(teacher.logits, temperature=4.0)),
    }[name]
    figure = method.figures[expected[0]]
    torch.testing.assert_close(figure[:, 0].sum() / figure[:, 1].sum(), expected[1].mean())


# BKD and DiVE


def test_bkd_is_plain_kd_until_its_deferral_ends(context, outputs):
    method = from_yaml("bkd", context, deferral_fraction=0.8)  # 8 of 10 epochs
    student, teacher, _ = outputs
    plain, balanced = (
        losses.balanced_kd(
            student.logits, teacher.logits, context.class_counts, temperature=2.0, effective_number_beta=beta
        )
        for beta in (0.0, 0.9999)
    )
    torch.testing.assert_close(plain, losses.kd(student.logits, teacher.logits, temperature=2.0))
    assert abs(plain - balanced) > 0.01
    torch.testing.assert_close(method(*outputs)["balanced_kd"], plain)
    for epoch, expected in ((1, plain), (8, plain), (9, balanced), (10, balanced)):
        method.start_epoch(epoch)
        torch.testing.assert_close(method(*outputs)["balanced_kd"], expected)


def test_bkd_defers_on_cifar10_and_not_on_cifar100():
    shares = [
        compose_values("method=bkd", f"dataset={dataset}")["method"]["deferral_fraction"]
        for dataset in ("cifar10_lt", "cifar100_lt", "digits_lt")
    ]
    assert shares == [0.8, 0.0, 0.0]


MADE_FOR = "method=dive is made for teacher.task_loss=balanced_softmax student.task_loss=balanced_softmax"

OF_BALANCED_POSTERIOR = "made for teacher.task_loss=ce ++teacher.recipe.sampling=instance; elsewhere it is another"


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (["method=dive", "teacher.task_loss=balanced_softmax", "student.task_loss=balanced_softmax"], None),
        (["method=dive"], MADE_FOR),
        (["method=dive", "student.task_loss=balanced_softmax"], MADE_FOR),
        (["method=dive", "teacher.task_loss=balanced_softmax"], MADE_FOR),
        (["method=kd", "student.task_loss=balanced_softmax"], None),
        (["method=balanced_posterior", "++student.recipe.sampling=square_root"], None),
        (["method=balanced_posterior", "recipe.sampling=square_root"], OF_BALANCED_POSTERIOR),
        (["method=balanced_posterior", "teacher.task_loss=focal"], OF_BALANCED_POSTERIOR),
        (["method=xerm", "++teacher.recipe.sampling=class_balanced"], OF_BALANCED_POSTERIOR),
        (["method=xerm", "teacher.retraining=crt"], "teacher.retraining=crt evens the classes out, and method=xerm"),
        (["method=xerm", "teacher.retraining={name: crt, sampling: instance}"], None),
        (["method=rlkd"], None),
        (["method=rlkd", "student.task_loss=balanced_softmax"], "student.task_loss has no effect"),
    ],
)
def test_task_losses_that_a_method_is_not_made_for_are_told_in_one_line(caplog, overrides, warned):
    with caplog.at_level(logging.WARNING):
        load_config(compose_values("device=cpu", *overrides))
    assert len(caplog.records) == (warned is not None)
    assert (warned or "") in caplog.text


# CTKD


def test_ctkd_is_the_golden_value_with_the_gradients_of_student_and_temperature(context):
    case, inputs = golden("ctkd loss at the initial temperature")
    student, teacher = inputs["student_logits"].requires_grad_(), inputs["teacher_logits"]
    context.num_classes = student.shape[1]
    method = from_yaml("ctkd", context, weight=1.0).double()
    method.reversal.fill_(-0.5)
    batch = make_batch(torch.zeros(len(student), dtype=torch.int64))
    value = method.distill(ModelOutput(student), ModelOutput(teacher), batch)["ctkd"]
    assert value.item() == pytest.approx(case["value"], rel=1e-8)
    assert gradient(value, student).norm().item() == pytest.approx(case["gradient_norm"], rel=1e-8)
    reversed_case, _ = golden("ctkd gradient that reaches the raw temperature, lambda=-0.5")
    assert gradient(value, method.theta).tolist() == pytest.approx(reversed_case["expected"], rel=1e-8)
    unreversed, _ = golden("ctkd gradient of the loss with respect to the raw temperature, before reversal")
    method.reversal.fill_(1.0)
    value = method.distill(ModelOutput(student), ModelOutput(teacher), batch)["ctkd"]
    assert gradient(value, method.theta).norm().item() == pytest.approx(unreversed["gradient_norm"], rel=1e-8)


def test_the_reversal_of_ctkd_follows_the_golden_schedule(context):
    case, _ = golden("ctkd lambda schedule")
    context.epochs = 240  # the default share of the epochs is 10 of them
    method = from_yaml("ctkd", context)
    assert method.reversal.item() == pytest.approx(case["expected"][0], rel=1e-6)
    for epoch, expected in zip(case["kwargs"]["epochs"], case["expected"], strict=True):
        method.start_epoch(epoch)
        assert method.reversal.item() == pytest.approx(expected, rel=1e-6)
    assert set(method.state_dict()) == {"theta"}  # the epoch determines the rest


def test_ctkd_without_a_curriculum_is_fully_reversed_at_once(context):
    assert from_yaml("ctkd", context, curriculum_fraction=0.0).reversal == -1


def test_a_step_down_the_gradient_makes_the_task_of_ctkd_harder(context, outputs):
    method = from_yaml("ctkd", context)
    (group,) = method.parameter_groups()
    assert group["params"] == [method.theta]
    method.start_epoch(10)
    before = method(*outputs)["ctkd"]
    before.backward()
    with torch.no_grad():
        method.theta -= 0.05 * method.theta.grad
    assert method(*outputs)["ctkd"] > before
    figure = method.figures["temperature"]
    assert (figure[:, 0].sum() / 8).item() == pytest.approx(1 + 20 * method.theta.sigmoid().item(), rel=1e-6)


def test_ctkd_with_a_temperature_of_each_image(context, outputs):
    torch.manual_seed(0)
    student, teacher, _ = outputs
    method = from_yaml("ctkd", context, theta_of="image")
    method.start_epoch(10)
    temperature = method.temperature(student.logits, teacher.logits)
    assert temperature.shape == (8, 1)
    assert len(temperature.unique()) == 8
    each = [
        losses.kd(student.logits[i : i + 1], teacher.logits[i : i + 1], temperature=temperature[i].item())
        for i in range(8)
    ]
    value = method(*outputs)["ctkd"]
    torch.testing.assert_close(value, 0.9 * sum(each) / 8)
    value.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.theta.parameters())
    assert 14 < temperature.mean() < 17  # starts near the global version's 15.6
    fixed = 0.9 * losses.kd_per_image(student.logits, teacher.logits, temperature=temperature.detach()).mean()
    torch.testing.assert_close(student.logits.grad, gradient(fixed, student.logits))  # none through the perceptron


# MLKD


def two_views(context, student, teacher, student_strong, teacher_strong):
    """The outputs of the batch; the method's networks answer a second view of ones with the strong logits."""

    def network(strong):
        def run(images, features=False):
            assert (images == 1).all()
            return ModelOutput(strong)

        return run

    context.num_classes = student.shape[1]
    context.networks = Networks(network(student_strong), network(teacher_strong), None, None)
    return ModelOutput(student), ModelOutput(teacher)


def test_mlkd_sums_its_terms_over_both_views(context, outputs):
    student, teacher, batch = outputs
    strong = 3 * torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(9))
    weak = two_views(context, student.logits, teacher.logits, *strong)
    batch = replace(batch, second_view=torch.ones(8, 1, 1, 1))
    settings = {"instance_weight": 2.0, "batch_weight": 3.0, "class_weight": 4.0, "temperatures": [4.0, 2.0]}
    method = from_yaml("mlkd", context, **settings)
    views, at = ((student.logits, teacher.logits), tuple(strong)), {"temperatures": [2.0, 4.0]}
    expected = {
        "task": 0.1 * losses.cross_entropy(student.logits, batch.labels),
        "task_strong": 0.1 * losses.cross_entropy(strong[0], batch.labels),
        "instance": 2 * sum(losses.mlkd_instance(*view, **at) for view in views),
        "batch": 3 * sum(losses.mlkd_batch(*view, **at) for view in views),
        "class": 4 * sum(losses.mlkd_class(*view, **at) for view in views),
    }
    torch.testing.assert_close(method(*weak, batch), expected)

    standardized = from_yaml("lskd_mlkd", context, **settings)
    expected["instance"] = 2 * sum(losses.mlkd_instance(z(s), z(t), **at) for s, t in views)  # and nothing else
    torch.testing.assert_close(standardized(*weak, batch), expected)


def test_mlkd_as_the_public_code_has_it_is_the_golden_value(context):
    case, inputs = golden("mlkd_public_code_total")
    student = inputs["student_logits"].requires_grad_()
    outputs = two_views(
        context, student, inputs["teacher_logits"], inputs["student_logits_strong"], inputs["teacher_logits_strong"]
    )
    context.groups = torch.zeros(context.num_classes, dtype=torch.int64)
    value = sum(from_yaml("mlkd", context, public_code=True)(*outputs, make_batch(inputs["target"])).values())
    assert value.item() == pytest.approx(case["value"], rel=1e-8)
    assert gradient(value, student).norm().item() == pytest.approx(case["gradient_norm"], rel=1e-8)


def test_mlkds_public_code_needs_two_temperatures(context):
    with pytest.raises(UserError, match=r"method.temperatures: should have at least 2 entries .*got \[4.0\]"):
        from_yaml("mlkd", context, public_code=True, temperatures=[4.0])
    assert from_yaml("mlkd", context, temperatures=[4.0]).temperatures == [4.0]


def make_batch(labels):
    size = len(labels)
    return Batch(torch.zeros(size, 1, 1, 1), labels, torch.arange(size), second_view=torch.ones(size, 1, 1, 1))


def test_batchnorm_of_mlkds_student_sees_both_views():
    problem = make_problem("mlkd")
    before = problem.student.norms[0].num_batches_tracked.clone()
    problem.terms()
    assert problem.student.norms[0].num_batches_tracked == before + 2
