"""Bayesian teacher, OKD, speculative KD, reward extrapolation: which target, from whom, and who gets the gradient."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ltkd import losses
from ltkd.data import Batch
from ltkd.errors import UserError
from ltkd.methods import build_method, method_class
from ltkd.models.output import ModelOutput
from ltkd.task_losses import build_task_loss

from ..conftest import compose_values
from .problem import make_problem, method_context_of

TEACHER = {"name": "big", "seed": 3, "checkpoint": None, "arguments": {"width": 9}, "recipe": {"epochs": 9},
           "pretrained": True, "task_loss": "balanced_softmax"}  # fmt: skip
STUDENT = {"name": "resnet8", "arguments": {}, "recipe": {"learning_rate": 0.01}, "pretrained": False,
           "task_loss": "balanced_softmax"}  # fmt: skip


def values_of(name, *overrides):
    values = compose_values(f"method={name}", *overrides)["method"]
    values.pop("name")
    return values


def networks_of(problem):
    """(student, teacher) outputs on the problem's images, the student in eval mode."""
    problem.student.eval()
    return problem.student(problem.batch.images), problem.teacher(problem.batch.images)


# Bayesian teacher


def test_an_ensemble_is_the_teacher_and_teachers_of_the_seeds_after_its_own():
    arguments = values_of("bayesian", "method.samples=3")
    method = method_class("bayesian")
    assert method.extra_teachers(TEACHER, STUDENT, arguments) == [{"seed": 4}, {"seed": 5}]
    assert method.extra_teachers(TEACHER, STUDENT, arguments | {"samples": 1}) == []
    with pytest.raises(UserError, match=r"method.posterior: ensemble trains teachers .* teacher.checkpoint is one"):
        method.extra_teachers(TEACHER | {"checkpoint": "file.pt"}, STUDENT, arguments)


def test_swag_asks_for_its_samples():
    arguments = values_of("bayesian", "method.posterior=swag", "method.samples=2")
    swag = {"epochs": arguments["swag_epochs"], "learning_rate": arguments["swag_learning_rate"],
            "rank": arguments["swag_rank"]}  # fmt: skip
    wanted = method_class("bayesian").extra_teachers(TEACHER, STUDENT, arguments)
    assert wanted == [{"swag": swag | {"sample": 0}}, {"swag": swag | {"sample": 1}}]


@pytest.mark.parametrize(
    ("posterior", "set_for_it"),
    [("ensemble", set()), ("mc_dropout", {"dropout"}), ("swag", {"swag_epochs", "swag_learning_rate", "swag_rank"})],
)
def test_settings_of_another_posterior_are_null_and_warned_about(posterior, set_for_it, caplog):
    values = values_of("bayesian", f"method.posterior={posterior}")
    own = {"dropout", "swag_epochs", "swag_learning_rate", "swag_rank"}
    assert {key for key in own if values[key] is not None} == set_for_it
    make_problem("bayesian", posterior=posterior, **{key: values[key] for key in own})
    assert not caplog.records
    other = "dropout" if posterior != "mc_dropout" else "swag_rank"
    make_problem(
        "bayesian", posterior=posterior, **{key: values[key] for key in own} | {other: {"dropout": 0.5}.get(other, 3)}
    )
    assert f"method.{other} has no effect with method.posterior={posterior}" in caplog.text
    for key in set_for_it:
        with pytest.raises(UserError, match=f"method.{key}: is needed"):
            method_class("bayesian").extra_teachers(TEACHER, STUDENT, values | {key: None})


def test_an_ensemble_averages_the_teacher_with_the_others_and_swag_only_the_samples():
    for posterior, own in (("ensemble", True), ("swag", False)):
        problem = make_problem("bayesian", posterior=posterior, weight=0.6, task_weight=0.1, teacher_temperature=2.0)
        student, teacher = networks_of(problem)
        others = torch.stack([torch.roll(teacher.logits, n, 1) for n in (1, 2)])
        batch = replace(problem.batch, extra_logits=tuple(others))
        terms = problem.method(student, teacher, batch)
        p = torch.cat((teacher.logits.unsqueeze(0), others) if own else (others,))
        p = (p / 2).softmax(2).mean(0)
        kl = (p * (p.log() - student.logits.log_softmax(1))).sum(1).mean()
        expected = {"task": 0.1 * F.cross_entropy(student.logits, batch.labels), "kd": 0.6 * 2 * kl}
        torch.testing.assert_close(terms, expected)


def mc_dropout(**settings):
    return make_problem("bayesian", posterior="mc_dropout", dropout=0.4, **settings)


def test_mc_dropout_masks_what_the_teachers_classifier_sees():
    problem = mc_dropout(samples=4)
    _, teacher = networks_of(problem)
    torch.manual_seed(1)
    samples = problem.method._logit_samples(teacher, problem.batch)
    torch.manual_seed(1)
    masked = F.dropout(teacher.embedding.repeat(4, 1), 0.4).view(4, 8, -1)
    assert ((masked == 0) | torch.isclose(masked, teacher.embedding / 0.6)).all()
    classifier = problem.teacher.classifier
    torch.testing.assert_close(samples, masked @ classifier.weight.T + classifier.bias)
    assert not torch.equal(samples[0], samples[1])
    assert not problem.teacher.training


def test_mc_dropout_is_unbiased_for_the_logits():
    problem = mc_dropout(samples=20_000, dtype=torch.float32)
    _, teacher = networks_of(problem)
    torch.manual_seed(0)
    samples = problem.method._logit_samples(teacher, problem.batch)
    tolerance = 4 * samples.std(0).max().item() / 20_000**0.5
    torch.testing.assert_close(samples.mean(0), teacher.logits, atol=tolerance, rtol=0)


def test_mc_dropout_runs_the_teacher_live_and_saves_nothing_of_it():
    method = mc_dropout().method
    assert not method.needs.teacher_logits_only
    assert make_problem("bayesian").method.needs.teacher_logits_only
    assert not list(method.parameters())
    assert not method.state_dict()


@pytest.mark.parametrize("lack", ["classifier", "embedding", "linear"])
def test_mc_dropout_without_a_linear_classifier_says_so(lack):
    context = method_context_of(mc_dropout().method)
    if lack == "embedding":
        context = replace(context, teacher=ModelOutput(context.teacher.logits))
    else:
        classifier = {"classifier": None, "linear": nn.Conv2d(5, 6, 1)}[lack]
        context = replace(context, networks=replace(context.networks, teacher_classifier=classifier))
    values = values_of("bayesian", "method.posterior=mc_dropout")
    with pytest.raises(UserError, match=r"method.posterior: mc_dropout needs .* Choose ensemble or swag"):
        build_method("bayesian", values, context, build_task_loss("ce", context.class_counts))


# OKD


def test_okd_starts_as_kd_and_its_module_at_the_teacher():
    problem = make_problem("okd", weight=0.7, task_weight=0.2, module_task_weight=0.5, temperature=3.0)
    student, teacher = networks_of(problem)
    terms = problem.method(student, teacher, problem.batch)
    assert terms["module_anchor"].item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(terms["kd"], 0.7 * losses.kd(student.logits, teacher.logits, temperature=3.0))
    torch.testing.assert_close(terms["module_task"], 0.5 * F.cross_entropy(teacher.logits, problem.batch.labels))


def test_okd_terms_once_the_module_has_moved():
    settings = {"module_task_weight": 0.5, "module_student_weight": 0.2, "module_anchor_weight": 0.8}
    problem = make_problem("okd", temperature=2.0, rank=3, weight=0.7, task_weight=0.2, **settings)
    student, teacher = networks_of(problem)
    module = problem.method.module
    nn.init.normal_(module.up.weight)
    assert module.down.weight.shape == (3, teacher.embedding.shape[1])
    shifted = teacher.logits + teacher.embedding @ (module.up.weight @ module.down.weight).T

    def kl(p_logits, q_logits):
        p = (p_logits / 2).softmax(1)
        return 4 * (p * (p.log() - (q_logits / 2).log_softmax(1))).sum(1).mean()

    expected = {
        "task": 0.2 * F.cross_entropy(student.logits, problem.batch.labels),
        "kd": 0.7 * kl(shifted, student.logits),
        "module_task": 0.5 * F.cross_entropy(shifted, problem.batch.labels),
        "module_student": 0.2 * kl(student.logits, shifted),
        "module_anchor": 0.8 * kl(teacher.logits, shifted),
    }
    torch.testing.assert_close(problem.method(student, teacher, problem.batch), expected)
    totals, counts = problem.method.figures["module_accuracy"].unbind(1)
    right = 100 * (shifted.argmax(1) == problem.batch.labels).float()
    torch.testing.assert_close((totals.sum() / counts.sum()), right.mean())


@pytest.mark.parametrize("term", ["task", "kd", "module_task", "module_student", "module_anchor"])
def test_no_gradient_of_a_module_term_reaches_the_student_nor_the_other_way_round(term):
    problem = make_problem("okd")
    nn.init.normal_(problem.method.module.up.weight)  # at 0 the first factor gets no gradient, and the anchor has none
    problem.terms()[term].backward()
    of_student = [p.grad is not None and p.grad.abs().sum() > 0 for p in problem.student.parameters()]
    of_module = [p.grad is not None and p.grad.abs().sum() > 0 for p in problem.method.module.parameters()]
    if term in ("task", "kd"):
        assert any(of_student)
        assert not any(of_module)
    else:
        assert not any(of_student)
        assert all(of_module)


def test_the_okd_module_has_an_optimizer_group_of_its_own():
    problem = make_problem("okd", module_learning_rate_factor=0.3, module_weight_decay=0.02)
    others, module = problem.method.parameter_groups()
    assert others == {"params": []}
    assert module["learning_rate_factor"] == 0.3
    assert module["weight_decay"] == 0.02
    assert [id(p) for p in module["params"]] == [id(p) for p in problem.method.module.parameters()]


def test_okd_without_a_pooled_vector_says_so():
    context = method_context_of(make_problem("okd").method)
    context = replace(context, teacher=ModelOutput(context.teacher.logits))
    with pytest.raises(UserError, match="okd needs the pooled vector"):
        build_method("okd", values_of("okd"), context, build_task_loss("ce", context.class_counts))


# Speculative KD


@pytest.mark.parametrize("variant", ["keep", "curriculum"])
@pytest.mark.parametrize("proposal", ["argmax", "sampled"])
def test_skd_image_by_image(variant, proposal):
    problem = make_problem("skd", variant=variant, proposal=proposal, k=2, weight=0.6, task_weight=0.3, temperature=2.0)
    _, teacher = networks_of(problem)
    student = ModelOutput(torch.randn(8, 6, generator=torch.Generator().manual_seed(6), dtype=torch.float64))
    torch.manual_seed(2)
    if proposal == "argmax":
        proposed, chosen = student.logits.argmax(1), teacher.logits.argmax(1)
    else:
        proposed = losses.sample_class(student.logits, temperature=0.5)
        chosen = losses.sample_class(teacher.logits, temperature=0.2)
    torch.manual_seed(2)
    terms = problem.method(student, teacher, problem.batch)

    kd, ce, accepted = [], [], []
    for b in range(8):
        ranked = sorted(range(6), key=lambda c, row=teacher.logits[b]: -row[c])
        accepted.append(proposed[b].item() in ranked[:2])
        p = (teacher.logits[b] / 2).softmax(0)
        kl = 4 * (p * (p.log() - (student.logits[b] / 2).log_softmax(0))).sum()
        kd.append(kl if accepted[-1] == (variant == "curriculum") else 0 * kl)
        ce.append((0.0 if accepted[-1] else 1.0) * -student.logits[b].log_softmax(0)[chosen[b]])
    assert 0 < sum(accepted) < 8  # both kinds of image are there
    expected = {"task": 0.3 * F.cross_entropy(student.logits, problem.batch.labels), "kd": 0.6 * sum(kd) / 8}
    if variant == "curriculum":
        expected["chosen_class"] = 0.6 * sum(ce) / 8
    torch.testing.assert_close(terms, expected)

    totals, counts = problem.method.figures["accepted"].unbind(1)
    groups = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])  # of the labels 0 0 0 1 1 2 3 5
    rates = torch.tensor(accepted).float()
    assert counts.tolist() == [5, 2, 1]
    assert totals.tolist() == [rates[groups == group].sum().item() for group in range(3)]


def test_an_accepted_image_that_keeps_its_own_distribution_gets_the_task_gradient_alone():
    problem = make_problem("skd", variant="keep", proposal="argmax", k=1, task_weight=0.0)
    teacher = problem.teacher(problem.batch.images)
    agreeing = 2 * teacher.logits.detach()  # the same ranking, another distribution
    student = torch.where(torch.arange(8).unsqueeze(1) < 4, agreeing, -agreeing).requires_grad_()
    sum(problem.method(ModelOutput(student), teacher, problem.batch).values()).backward()
    assert student.grad[:4].abs().sum() == 0
    assert (student.grad[4:].abs().sum(1) > 0).all()


def test_skd_refuses_a_k_that_accepts_everything():
    with pytest.raises(UserError, match=r"method.k: should be less than the number of classes \(6\).*got 6"):
        make_problem("skd", k=6)


# Reward extrapolation


def test_references_from_the_teacher_store_take_nothing_of_the_teacher_but_its_seed():
    method, values = method_class("exopd"), values_of("exopd")
    plain = {"task_loss": "ce", "checkpoint": None, "retraining": None, "pretrained": False, "arguments": {}}
    assert method.extra_teachers(TEACHER, STUDENT, values) == []
    of_student = {"name": "resnet8", "recipe": {"learning_rate": 0.01}}
    assert method.extra_teachers(TEACHER, STUDENT, values | {"reference": "student"}) == [plain | of_student]
    small = {"name": "resnet14", "recipe": {}}
    assert method.extra_teachers(TEACHER, STUDENT, values | {"reference": "resnet14"}) == [plain | small]
    with pytest.raises(UserError, match=r"method.reference: unknown name 'resnet15'.*\(or prior, or student\)"):
        method.extra_teachers(TEACHER, STUDENT, values | {"reference": "resnet15"})


@pytest.mark.parametrize("divergence", ["reverse", "forward"])
@pytest.mark.parametrize("reference", ["prior", "student"])
def test_exopd_is_the_divergence_that_it_says(divergence, reference):
    settings = {"reward_scale": 1.5, "temperature": 2.0, "weight": 0.6, "task_weight": 0.3}
    problem = make_problem("exopd", reference=reference, divergence=divergence, **settings)
    student, teacher = networks_of(problem)
    if reference == "prior":
        z_ref = (torch.tensor([100, 50, 25, 12, 6, 3]).double() / 196).log()
    else:
        z_ref = teacher.logits.roll(1, 1)
    batch = replace(problem.batch, extra_logits=() if reference == "prior" else (z_ref,))
    log_target = ((z_ref + 1.5 * (teacher.logits - z_ref)) / 2).log_softmax(1)
    log_q = (student.logits / 2).log_softmax(1)
    pair = (log_q, log_target) if divergence == "reverse" else (log_target, log_q)
    kl = (pair[0].exp() * (pair[0] - pair[1])).sum(1).mean()
    expected = {"task": 0.3 * F.cross_entropy(student.logits, batch.labels), "extrapolation": 0.6 * 4 * kl}
    torch.testing.assert_close(problem.method(student, teacher, batch), expected, rtol=1e-6, atol=1e-8)


def test_the_prior_needs_an_image_of_every_class(context):
    context.class_counts = torch.tensor([100, 50, 0, 12, 6, 0])
    task_loss = build_task_loss("ce", context.class_counts)
    with pytest.raises(UserError, match=r"method.reference: prior needs .* none of class 2, 5"):
        build_method("exopd", values_of("exopd"), context, task_loss)
    build_method("exopd", values_of("exopd", "method.reference=student"), context, task_loss)


# all of them


@pytest.mark.parametrize("name", ["bayesian", "skd", "exopd"])
def test_images_without_a_teachers_features_will_do(context, name):
    """What a cache of the teacher's logits can give."""
    generator = torch.Generator().manual_seed(0)
    values = values_of(name)
    method = build_method(name, values, context, build_task_loss("ce", context.class_counts))
    student, teacher, other = torch.randn(3, 8, 6, generator=generator)
    batch = Batch(torch.zeros(8, 1, 1, 1), torch.randint(6, (8,), generator=generator), torch.arange(8), None, (other,))
    before = copy.deepcopy(teacher)
    terms = method(ModelOutput(student.requires_grad_()), ModelOutput(teacher), batch)
    sum(terms.values()).backward()
    assert torch.equal(teacher, before)
    assert student.grad.abs().sum() > 0
