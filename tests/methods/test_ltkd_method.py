"""LTKD's settings: where the masses come from, which groups, what is saved, what is warned about."""

import logging

import pytest
import torch

from ltkd.errors import UserError
from ltkd.losses import group_mass, kd, ltkd_terms
from ltkd.methods import build_method
from ltkd.methods.ltkd import rank_groups
from ltkd.models.output import ModelOutput
from ltkd.task_losses import build_task_loss

DEFAULTS = {
    "task_weight": 1.0,
    "alpha": 2.0,
    "beta": 0.5,
    "temperature": 3.0,
    "warmup_fraction": 0.0,
    "rebalancing": "batch",
    "within_weights": "uniform",
    "groups": "dataset",
}


def make(context, **settings):
    return build_method("ltkd", DEFAULTS | settings, context, build_task_loss("ce", context.class_counts))


def part(outputs, rows):
    student, teacher, batch = outputs
    return (
        ModelOutput(student.logits[rows]),
        ModelOutput(teacher.logits[rows]),
        type(batch)(batch.images[rows], batch.labels[rows], batch.index[rows]),
    )


def batch_mass(context, teacher_logits):
    return group_mass(teacher_logits, context.groups, 3, temperature=3.0).mean(dim=0)


@pytest.mark.parametrize("rebalancing", ["batch", "none"])
@pytest.mark.parametrize("within_weights", ["uniform", "teacher"])
def test_terms_are_the_weighted_loss(context, outputs, rebalancing, within_weights):
    student, teacher, _ = outputs
    method = make(context, rebalancing=rebalancing, within_weights=within_weights)
    cross, within = ltkd_terms(
        student.logits,
        teacher.logits,
        context.groups,
        temperature=3.0,
        rebalancing=rebalancing,
        within_weights=within_weights,
    )
    terms = method(*outputs)
    assert set(terms) == {"task", "cross", "within"}
    torch.testing.assert_close(terms["cross"], 2 * cross)
    torch.testing.assert_close(terms["within"], 0.5 * within)
    assert not method.needs_teacher_statistics
    assert not method.state_dict()


def test_running_masses_are_a_moving_average_that_the_first_batch_starts(context, outputs):
    method = make(context, rebalancing="running", running_momentum=0.9)
    expected = None
    for rows in (slice(0, 3), slice(3, 5), slice(5, 8)):
        student, teacher, batch = part(outputs, rows)
        now = batch_mass(context, teacher.logits)
        expected = now if expected is None else 0.9 * expected + 0.1 * now
        terms = method(student, teacher, batch)
        cross, _ = ltkd_terms(student.logits, teacher.logits, context.groups, temperature=3.0, rebalancing=expected)
        torch.testing.assert_close(terms["cross"], 2 * cross)
        torch.testing.assert_close(method.mean_group_mass, expected)


def test_running_masses_are_saved_and_rest_in_eval_mode(context, outputs):
    method = make(context, rebalancing="running")
    assert method.eval()(*outputs)["cross"].isfinite()  # before any batch: not rebalanced
    assert method.mean_group_mass.sum() == 0
    method.train()(*part(outputs, slice(0, 4)))
    saved = {key: value.clone() for key, value in method.state_dict().items()}
    assert set(saved) == {"mean_group_mass"}
    method.eval()(*part(outputs, slice(4, 8)))
    torch.testing.assert_close(method.state_dict(), saved, rtol=0, atol=0)

    resumed = make(context, rebalancing="running")
    resumed.load_state_dict(saved)
    method.train()
    torch.testing.assert_close(resumed(*outputs), method(*outputs), rtol=0, atol=0)


def test_dataset_masses_come_from_prepare_and_make_the_loss_independent_of_the_batch(context, outputs, monkeypatch):
    monkeypatch.setattr("ltkd.methods.ltkd.STATISTICS_ROWS", 3)  # chunks of unequal size
    student, teacher, batch = outputs
    method = make(context, rebalancing="dataset")
    assert method.needs_teacher_statistics
    assert method(*outputs)["cross"].isnan()  # a missing `prepare` must not pass unnoticed
    method.prepare(teacher.logits, batch.labels)
    torch.testing.assert_close(method.mean_group_mass, batch_mass(context, teacher.logits))
    assert set(method.state_dict()) == {"mean_group_mass"}

    cross, _ = ltkd_terms(student.logits, teacher.logits, context.groups, temperature=3.0)
    torch.testing.assert_close(method(*outputs)["cross"], 2 * cross)  # the batch is the data set here
    halves = [method(*part(outputs, rows))["cross"] for rows in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(sum(halves) / 2, 2 * cross)
    paper = make(context)
    halves = [paper(*part(outputs, rows))["cross"] for rows in (slice(0, 4), slice(4, 8))]
    assert (sum(halves) / 2 - 2 * cross).abs() > 1e-3


def test_groups_without_classes_are_skipped(context, outputs):
    context.groups = torch.tensor([0, 0, 0, 2, 2, 2])  # nothing in "medium"
    for rebalancing in ("batch", "running", "dataset", "none"):
        method = make(context, rebalancing=rebalancing)
        method.prepare(outputs[1].logits, outputs[2].labels)
        terms = method(*outputs)
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
        assert outputs[0].logits.grad.isfinite().all()


def test_k_groups_are_cut_by_rank_with_ties_by_label(context, outputs):
    counts = torch.tensor([5, 90, 5, 40, 90, 5, 70])
    assert rank_groups(counts, 3).tolist() == [1, 0, 2, 1, 0, 2, 0]
    assert rank_groups(counts, 7).tolist() == [4, 0, 5, 3, 1, 6, 2]
    with pytest.raises(UserError, match="1 to 7"):
        rank_groups(counts, 8)

    student, teacher, _ = outputs
    cross, within = ltkd_terms(student.logits, teacher.logits, torch.tensor([0, 0, 0, 1, 1, 1]), temperature=3.0)
    terms = make(context, groups=2)(*outputs)
    torch.testing.assert_close((terms["cross"], terms["within"]), (2 * cross, 0.5 * within))


def test_only_the_students_logits_get_a_gradient(context, outputs):
    student, teacher, _ = outputs
    teacher.logits.requires_grad_()
    for rebalancing in ("batch", "running"):
        sum(make(context, rebalancing=rebalancing)(*outputs).values()).backward()
    assert teacher.logits.grad is None
    assert student.logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({}, None),
        ({"rebalancing": "running", "running_momentum": 0.5}, None),
        ({"running_momentum": 0.5}, "running_momentum has no effect with method.rebalancing=batch"),
        ({"groups": 1}, "alpha has no effect: all classes are in one group, so the cross term is 0; LTKD is then KD"),
        ({"groups": 2}, None),
        ({"groups": 6}, "beta has no effect"),
    ],
)
def test_a_setting_without_effect_is_warned_about(context, settings, warning, caplog):
    with caplog.at_level(logging.WARNING):
        make(context, **settings)
    if warning is None:
        assert not caplog.records
    else:
        assert warning in caplog.text


@pytest.mark.parametrize(
    ("counts", "groups", "warning"),
    [
        ([9, 9, 9, 2, 2, 2], 2, None),
        ([9, 9, 9, 2, 2, 2], 3, "3 groups cut through classes of equal numbers of training images (after rank 2, 4)"),
        ([9, 9, 9, 2, 2, 2], 6, "beta has no effect"),  # every class alone: nothing is cut
        ([4, 4, 4, 4, 4, 4], 2, "2 groups cut through classes of equal numbers of training images (after rank 3)"),
    ],
)
def test_ranked_groups_that_cut_a_tie_are_warned_about(context, counts, groups, warning, caplog):
    context.class_counts = torch.tensor(counts)
    with caplog.at_level(logging.WARNING):
        make(context, groups=groups)
    assert [warning in record.getMessage() for record in caplog.records] == ([] if warning is None else [True])


def test_two_groups_of_the_data_set_are_said_and_one_group_is_kd(context, outputs, caplog):
    """The loss with one group is the task's and beta times KD's divergence."""
    student, teacher, _ = outputs
    context.groups, context.group_names = torch.tensor([0, 0, 0, 1, 1, 1]), ["head", "tail"]
    with caplog.at_level(logging.WARNING):
        make(context)
    assert "the data set's two groups" in caplog.text
    context.groups, context.group_names = torch.zeros(6, dtype=torch.long), ["balanced"]
    terms = make(context, beta=1.0)(*outputs)
    torch.testing.assert_close(terms["cross"], torch.zeros(()))
    torch.testing.assert_close(terms["within"], kd(student.logits, teacher.logits, temperature=3.0))
