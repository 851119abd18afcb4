"""LTKD's two terms: against loops, the decomposition of KD that they come from, derivatives, and degenerate cases."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck

from ltkd.losses import ClassGroups, group_log_mass, group_mass, kd, ltkd_terms

from . import slow_reference

GROUPS = torch.tensor([4, 0, 1, 0, 4, 4, 1, 0])  # not sorted, and ids 2 and 3 have no class
MASSES = torch.tensor([0.6, 0.3, 0.0, 0.0, 0.1], dtype=torch.float64)  # by id; 0 where no class is
B, C = 5, len(GROUPS)

modes = pytest.mark.parametrize(
    ("rebalancing", "within_weights"), list(itertools.product(["batch", "none", MASSES], ["uniform", "teacher"]))
)


@pytest.fixture
def logits():
    student, teacher = 3 * torch.randn(2, B, C, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return student.requires_grad_(), teacher


def terms(student, teacher, groups=GROUPS, temperature=3.0, **modes):
    return torch.stack(ltkd_terms(student, teacher, groups, temperature=temperature, **modes))


@modes
def test_equals_the_loop(logits, rebalancing, within_weights):
    student, teacher = logits
    masses = rebalancing if isinstance(rebalancing, str) else rebalancing.tolist()
    expected = slow_reference.ltkd_terms(
        student.tolist(), teacher.tolist(), GROUPS.tolist(), 3.0, masses, within_weights
    )
    values = terms(student, teacher, rebalancing=rebalancing, within_weights=within_weights)
    assert values.tolist() == pytest.approx(expected, rel=1e-12)


@modes
def test_derivatives(logits, rebalancing, within_weights):
    student, teacher = logits
    assert gradcheck(
        lambda z: ltkd_terms(
            z, teacher, GROUPS, temperature=2.0, rebalancing=rebalancing, within_weights=within_weights
        ),
        student,
    )


def test_defaults_are_the_papers(logits):
    values = terms(*logits)
    torch.testing.assert_close(values, terms(*logits, rebalancing="batch", within_weights="uniform"))
    assert not torch.isclose(values[0], terms(*logits, rebalancing="none")[0])
    assert not torch.isclose(values[1], terms(*logits, within_weights="teacher")[1])


@pytest.mark.parametrize("groups", [GROUPS, torch.zeros(C, dtype=torch.long), torch.arange(C)])
def test_without_rebalancing_and_with_teacher_weights_the_terms_add_up_to_kd(logits, groups):
    student, teacher = logits
    total = terms(student, teacher, groups, rebalancing="none", within_weights="teacher").sum()
    expected = kd(student, teacher, temperature=3.0)
    torch.testing.assert_close(total, expected)
    gradients = [torch.autograd.grad(value, student)[0] for value in (total, expected)]
    torch.testing.assert_close(*gradients)


def test_the_batchs_own_masses_given_as_a_tensor_are_batch_rebalancing(logits):
    student, teacher = logits
    mean_mass = group_mass(teacher, GROUPS, 5, temperature=3.0).mean(dim=0)
    torch.testing.assert_close(terms(student, teacher, rebalancing=mean_mass), terms(student, teacher))


def test_equal_logits_cost_nothing_unless_rebalanced(logits):
    _, teacher = logits
    assert terms(teacher, teacher, rebalancing="none").abs().max() < 1e-12
    cross, within = terms(teacher, teacher)
    assert cross > 0.01
    assert within.abs() < 1e-12


def test_a_constant_on_all_logits_of_an_image_changes_nothing(logits):
    student, teacher = logits
    shift = torch.linspace(-5, 5, B, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(terms(student + shift, teacher - 2 * shift), terms(student, teacher))


def test_scaling_logits_and_temperature_by_c_scales_by_c_squared(logits):
    student, teacher = logits
    torch.testing.assert_close(
        terms(3 * student, 3 * teacher, temperature=12.0), 9 * terms(student, teacher, temperature=4.0)
    )


def test_only_batch_rebalancing_depends_on_who_shares_the_batch(logits):
    student, teacher = (tensor[:4] for tensor in logits)
    for rebalancing, independent in (("batch", False), ("none", True), (MASSES, True)):
        halves = [terms(student[i : i + 2], teacher[i : i + 2], rebalancing=rebalancing) for i in (0, 2)]
        difference = (sum(halves) / 2 - terms(student, teacher, rebalancing=rebalancing)).abs()
        assert (difference[0] < 1e-12) == independent
        assert difference[1] < 1e-12


def test_no_gradient_reaches_teacher_or_masses(logits):
    student, teacher = logits
    teacher, masses = teacher.requires_grad_(), MASSES.clone().requires_grad_()
    terms(student, teacher, rebalancing=masses, within_weights="teacher").sum().backward()
    assert teacher.grad is None
    assert masses.grad is None
    assert student.grad.abs().sum() > 0


@modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "groups",
    [
        torch.tensor([0, 0, 1, 1, 2, 2]),  # the teacher below gives group 2 no mass in the whole batch
        torch.tensor([0, 0, 0, 1, 1, 2]),  # one class in a group
        torch.tensor([2, 2, 2, 2, 2, 0]),  # two non-empty groups of three
        torch.zeros(6, dtype=torch.long),
        torch.arange(6),
    ],
    ids=["zero-mass", "one-class", "two-groups", "one-group", "group-per-class"],
)
def test_degenerate_cases_are_finite(rebalancing, within_weights, dtype, batch, groups):
    student = torch.tensor([[-1e4, 1e4, 3, 0, 1e4, 1]] * batch, dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[1e4, -1e4, 1e4, 0, -1e4, -1e4]] * batch, dtype=dtype)
    if not isinstance(rebalancing, str):
        rebalancing = group_mass(teacher, groups, 6).mean(dim=0)  # exact zeros: underflow, and ids without classes
    with torch.autocast("cpu", torch.bfloat16):
        values = terms(
            student, teacher, groups, temperature=1.0, rebalancing=rebalancing, within_weights=within_weights
        )
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert values.dtype == torch.float32
    assert gradient.dtype == dtype
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    if len(groups.unique()) == 1:
        assert values[0] == 0
    if len(groups.unique()) == len(groups):
        assert values[1] == 0


def test_a_precomputed_layout_gives_the_same_values(logits):
    layout = ClassGroups.of(GROUPS)
    assert layout.ids.tolist() == [0, 1, 4]
    assert (layout.num_ids, layout.num_classes) == (5, C)
    torch.testing.assert_close(terms(*logits, layout), terms(*logits), rtol=0, atol=0)


def test_group_mass_is_the_sum_of_probabilities_by_id(logits):
    _, teacher = logits
    probabilities = (teacher / 2).softmax(dim=1)
    expected = torch.stack([probabilities[:, group == GROUPS].sum(dim=1) for group in range(6)], dim=1)
    torch.testing.assert_close(group_mass(teacher, GROUPS, 6, temperature=2.0), expected)
    torch.testing.assert_close(group_log_mass(teacher, GROUPS, temperature=2.0), expected[:, [0, 1, 4]].log())


def test_wrong_arguments_are_errors_that_say_what_is_right(logits):
    student, teacher = logits
    with pytest.raises(ValueError, match=r"rebalancing: .*batch, none"):
        terms(student, teacher, rebalancing="bach")
    with pytest.raises(ValueError, match=r"within_weights: .*teacher, uniform"):
        terms(student, teacher, within_weights="equal")
    with pytest.raises(ValueError, match="3 classes, but the logits have 8"):
        terms(student, teacher, torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="non-negative integer"):
        ClassGroups.of(torch.tensor([0, -1]))
    with pytest.raises(ValueError, match="at least 5"):
        group_mass(teacher, GROUPS, 3)
