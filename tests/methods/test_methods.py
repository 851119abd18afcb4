"""What all methods share: names, terms, weights, warm-up, and their YAML files."""

from pathlib import Path

import pytest
import torch

from ltkd import losses
from ltkd.config.bind import bind
from ltkd.errors import UserError
from ltkd.methods import Method, build_method, list_methods, method_class, register
from ltkd.task_losses import build_task_loss

from ..conftest import compose_values

CONFIGS = Path(__file__).parents[2] / "conf" / "method"


def from_yaml(name, context, **overrides):
    values = compose_values(f"method={name}")["method"] | overrides
    values.pop("name")
    return build_method(name, values, context, build_task_loss("ce", context.class_counts))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_file_binds_to_its_class(path):
    values = compose_values(f"method={path.stem}")["method"]
    assert values.pop("name") == path.stem
    errors = []
    bind(method_class(path.stem), values, "method", errors, given=2)
    assert errors == []


def test_every_method_has_a_yaml_file():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} >= set(list_methods())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"fidelity": "faithful"}, "method own: Own.paper is missing"),
        ({"paper": "a paper"}, "method own: Own.fidelity should be one of 'faithful' .*; 'adapted' .*; 'inspired' "),
        ({"paper": "a paper", "fidelity": "exact"}, "Own.fidelity should be one of"),
    ],
)
def test_a_method_says_where_it_is_from_and_how_close_it_is(said, message):
    for base in (Method, method_class("kd")):  # what a base says is not said of the method
        with pytest.raises(TypeError, match=message):
            register("own")(type("Own", (base,), said))
    assert "own" not in list_methods()


def test_unknown_name_lists_the_choices():
    with pytest.raises(UserError, match=r"method.name: .*'ltkdd'.*did you mean 'ltkd'.*: .*\bce, .*\bkd, .*\bltkd\b"):
        method_class("ltkdd")


def test_ce_is_the_task_loss_and_needs_no_teacher(context, outputs):
    student, _, batch = outputs
    method = from_yaml("ce", context)
    assert not method.needs.teacher
    terms = method(student, None, batch)
    assert set(terms) == {"task"}
    assert terms["task"] == losses.cross_entropy(student.logits, batch.labels)


def test_kd_terms_are_weighted(context, outputs):
    student, teacher, batch = outputs
    terms = from_yaml("kd", context, task_weight=0.3, weight=7.0, temperature=2.0)(student, teacher, batch)
    expected = {
        "task": 0.3 * losses.cross_entropy(student.logits, batch.labels),
        "kd": 7 * losses.kd(student.logits, teacher.logits, temperature=2.0),
    }
    torch.testing.assert_close(terms, expected)


def test_dkd_terms_are_weighted_and_warmed_up_but_the_task_loss_is_not(context, outputs):
    student, teacher, batch = outputs
    method = from_yaml(
        "dkd", context, task_weight=0.3, alpha=2.0, beta=5.0, temperature=3.0, warmup_fraction=0.4
    )  # 4 of 10 epochs
    target, nontarget = losses.dkd_terms(student.logits, teacher.logits, batch.labels, temperature=3.0)
    task = 0.3 * losses.cross_entropy(student.logits, batch.labels)

    def check(factor):
        expected = {"task": task, "dkd_target": factor * 2 * target, "dkd_nontarget": factor * 5 * nontarget}
        torch.testing.assert_close(method(student, teacher, batch), expected)

    check(0.25)  # a new method stands at epoch 1
    for epoch, factor in ((1, 0.25), (3, 0.75), (4, 1.0), (9, 1.0), (2, 0.5)):
        method.start_epoch(epoch)
        check(factor)
    assert not method.state_dict()  # the epoch determines the factor


def test_without_warm_up_the_first_epoch_counts_fully(context, outputs):
    method = from_yaml("dkd", context, warmup_fraction=0.0)
    at_construction = method(*outputs)
    method.start_epoch(1)
    torch.testing.assert_close(method(*outputs), at_construction)
    assert method.warmup == 1


def test_an_epoch_reaches_the_task_loss(context):
    method = from_yaml("kd", context)
    epochs = []
    method.task_loss.start_epoch = lambda epoch, epochs_in_all: epochs.append((epoch, epochs_in_all))
    method.start_epoch(3)
    assert epochs == [(3, 10)]
