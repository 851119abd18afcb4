"""NKD, WSL, balanced KD, DiVE, standardised logits: against loops, and what each is equal to."""

import pytest
import torch
import torch.nn.functional as F

from ltkd.losses import (
    balanced_kd,
    cross_entropy,
    dive,
    dive_target,
    dkd_terms,
    effective_number_weights,
    kd,
    kd_per_image,
    nkd,
    soft_label_weights,
    standardize,
    weighted_soft_labels,
)

from . import slow_logit, slow_reference

B, C = 5, 7
COUNTS = torch.tensor([500, 200, 90, 40, 20, 9, 5])
TARGET = torch.tensor([0, 6, 3, 3, 1])


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, B, C, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def as_lists(*tensors):
    return [tensor.tolist() for tensor in tensors]


def gradient(loss, student):
    return torch.autograd.grad(loss, student)[0]


def test_nkd_equals_the_loop(logits):
    expected = slow_logit.nkd(*as_lists(*logits, TARGET), 1.5, 3.0)
    assert nkd(*logits, TARGET, gamma=1.5, temperature=3.0).item() == pytest.approx(expected, rel=1e-12)


def test_weighted_soft_labels_equal_the_loop(logits):
    expected = slow_logit.weighted_soft_labels(*as_lists(*logits, TARGET), 2.25, 4.0)
    value = weighted_soft_labels(*logits, TARGET, weight=2.25, temperature=4.0)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    weights = slow_logit.soft_label_weights(*as_lists(*logits, TARGET))
    assert soft_label_weights(*logits, TARGET).tolist() == pytest.approx(weights, rel=1e-12)


def test_balanced_kd_equals_the_loop(logits):
    expected = slow_logit.balanced_kd(*as_lists(*logits, COUNTS), 2.0, 0.999)
    value = balanced_kd(*logits, COUNTS, temperature=2.0, effective_number_beta=0.999)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_standardized_logits_equal_the_loop(logits):
    expected = torch.tensor([slow_logit.standardize(row) for row in logits[1].tolist()], dtype=torch.float64)
    torch.testing.assert_close(standardize(logits[1]), expected)


def test_kd_of_each_image(logits):
    student, teacher = logits
    each = kd_per_image(student, teacher, temperature=3.0)
    alone = [slow_reference.kd([s], [t], 3.0) for s, t in zip(*as_lists(student, teacher), strict=True)]
    assert each.tolist() == pytest.approx(alone, rel=1e-12)
    temperatures = torch.linspace(1, 5, B, dtype=torch.float64).unsqueeze(1)
    each = kd_per_image(student, teacher, temperature=temperatures)
    alone = [
        slow_reference.kd([s], [t], temperature)
        for s, t, temperature in zip(*as_lists(student, teacher, temperatures.flatten()), strict=True)
    ]
    assert each.tolist() == pytest.approx(alone, rel=1e-12)


def test_nkd_and_dkd_have_the_same_gradient_beside_the_target(logits):
    """Their non-target parts differ by the teacher's entropy."""
    student, teacher = logits
    without_target_part = nkd(student, teacher, TARGET, gamma=2.0, temperature=3.0) - nkd(
        student, teacher, TARGET, gamma=0.0, temperature=3.0
    )
    _, nontarget = dkd_terms(student, teacher, TARGET, temperature=3.0)
    torch.testing.assert_close(gradient(without_target_part, student), 2 * gradient(nontarget, student))


def test_nkd_of_a_teacher_that_is_sure_of_the_label_is_cross_entropy(logits):
    student, _ = logits
    sure = 1e3 * F.one_hot(TARGET, C).double()
    value = nkd(student, sure, TARGET, gamma=0.0, temperature=1.0)
    torch.testing.assert_close(value, cross_entropy(student, TARGET))


def test_soft_labels_of_a_teacher_that_knows_its_images_by_heart_all_count_fully(logits):
    """T^2 * cross-entropy, whose gradient is KD's; no overflow in the ratio of the losses."""
    student, teacher = logits
    knowing = teacher + 100 * F.one_hot(TARGET, C)
    assert torch.equal(soft_label_weights(student, knowing, TARGET), torch.ones(B, dtype=torch.float64))
    huge = soft_label_weights(1e6 * student.float(), knowing.float(), TARGET)
    assert ((huge >= 0) & (huge <= 1)).all()
    value = weighted_soft_labels(student, knowing, TARGET, weight=1.0, temperature=4.0)
    torch.testing.assert_close(gradient(value, student), gradient(kd(student, knowing, temperature=4.0), student))


def test_soft_labels_do_not_count_where_the_student_already_knows():
    knowing = 50 * F.one_hot(TARGET, C).double()
    assert soft_label_weights(knowing, -knowing, TARGET).max() < 1e-12


def test_balanced_kd_with_beta_zero_is_kd_and_near_one_adjusts_the_teacher_by_the_counts(logits):
    student, teacher = logits
    plain = balanced_kd(student, teacher, COUNTS, temperature=2.0, effective_number_beta=0.0)
    torch.testing.assert_close(plain, kd(student, teacher, temperature=2.0))
    adjusted = kd(student, teacher - 2 * COUNTS.log(), temperature=2.0)
    value = balanced_kd(student, teacher, COUNTS, temperature=2.0, effective_number_beta=1 - 1e-9)
    torch.testing.assert_close(value, adjusted, rtol=1e-5, atol=0)
    assert abs(value - plain) > 0.1


def test_beta_of_balanced_kd_may_be_a_tensor(logits):
    number, tensor = (
        balanced_kd(*logits, COUNTS, temperature=2.0, effective_number_beta=beta)
        for beta in (0.999, torch.tensor(0.999, dtype=torch.float64))
    )
    torch.testing.assert_close(number, tensor)


def test_weights_of_the_usual_beta_are_nearly_inverse_counts():
    weights = effective_number_weights(torch.tensor([500, 5]), beta=0.9999)
    assert (weights[1] / weights[0]).item() == pytest.approx(97.6, abs=0.05)  # 100 for inverse counts


def test_dive_is_kd_from_a_teacher_at_a_higher_temperature(logits):
    student, teacher = logits
    flattened = (teacher / 2).softmax(1) ** 0.5
    flattened = flattened / flattened.sum(1, keepdim=True)
    torch.testing.assert_close(dive_target(teacher, temperature=2.0, power=0.5), flattened)
    torch.testing.assert_close(flattened, (teacher / 4).softmax(1))  # T / power
    by_hand = 4 * (flattened * (flattened.log() - (student / 2).log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(dive(student, teacher, temperature=2.0, power=0.5), by_hand)
    torch.testing.assert_close(
        dive(student, teacher, temperature=3.0, power=1.0), kd(student, teacher, temperature=3.0)
    )


def test_standardized_logits_have_no_scale_but_an_order(logits):
    _, teacher = logits
    z = standardize(teacher)
    torch.testing.assert_close(z.mean(1), torch.zeros(B, dtype=torch.float64))
    torch.testing.assert_close(z.std(1), torch.ones(B, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(standardize(40 * teacher - 7), z, rtol=1e-6, atol=1e-6)
    two = torch.tensor([[3.0, -1.0], [0.1, 0.2]], dtype=torch.float64)
    order = torch.tensor([[1, -1], [-1, 1]], dtype=torch.float64)
    torch.testing.assert_close(standardize(two), order / 2**0.5, rtol=1e-5, atol=0)
    assert torch.equal(standardize(torch.full((2, 4), 3.0)), torch.zeros(2, 4))
