"""KD and DKD against loops, identities, derivatives, and the edge of the number range."""

import pytest
import torch
from torch.autograd import gradcheck

from ltkd.losses import dkd, dkd_terms, kd

from . import slow_reference

B, C = 5, 7


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, B, C, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher, torch.tensor([0, 6, 3, 3, 1])


def test_kd_equals_the_loop(logits):
    student, teacher, _ = logits
    expected = slow_reference.kd(student.tolist(), teacher.tolist(), 3.0)
    assert kd(student, teacher, temperature=3.0).item() == pytest.approx(expected, rel=1e-12)


def test_dkd_equals_the_loop(logits):
    student, teacher, target = logits
    expected = slow_reference.dkd(student.tolist(), teacher.tolist(), target.tolist(), 0.7, 5.0, 3.0)
    assert dkd(student, teacher, target, alpha=0.7, beta=5.0, temperature=3.0).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_derivatives(logits):
    student, teacher, target = logits
    assert gradcheck(lambda z: kd(z, teacher, temperature=2.0), student)
    assert gradcheck(lambda z: dkd(z, teacher, target, alpha=0.7, beta=5.0, temperature=2.0), student)


def test_dkd_with_beta_one_minus_the_target_probability_is_kd(logits):
    student, teacher, target = logits
    for b in range(B):
        row = slice(b, b + 1)
        beta = 1 - (teacher[b] / 4).softmax(0)[target[b]].item()
        value = dkd(student[row], teacher[row], target[row], alpha=1.0, beta=beta, temperature=4.0)
        torch.testing.assert_close(value, kd(student[row], teacher[row], temperature=4.0))


def both(student, teacher, target, temperature=4.0):
    return torch.stack(
        (kd(student, teacher, temperature=temperature), *dkd_terms(student, teacher, target, temperature=temperature))
    )


def test_a_constant_on_all_logits_of_an_image_changes_nothing(logits):
    student, teacher, target = logits
    shift = torch.linspace(-5, 5, B, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(both(student + shift, teacher - 2 * shift, target), both(student, teacher, target))


def test_scaling_logits_and_temperature_by_c_scales_by_c_squared(logits):
    student, teacher, target = logits
    torch.testing.assert_close(both(3 * student, 3 * teacher, target, 12.0), 9 * both(student, teacher, target, 4.0))


def test_halves_of_a_batch_average_to_the_whole(logits):
    student, teacher, target = (tensor[:4] for tensor in logits)
    halves = both(student[:2], teacher[:2], target[:2]) + both(student[2:], teacher[2:], target[2:])
    torch.testing.assert_close(halves / 2, both(student, teacher, target))


def test_no_gradient_reaches_the_teacher(logits):
    student, teacher, target = logits
    teacher = teacher.requires_grad_()
    both(student, teacher, target).sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_dkd_of_two_classes_has_no_nontarget_part(logits):
    student, teacher, _ = logits
    target_part, nontarget_part = dkd_terms(
        student[:, :2], teacher[:, :2], torch.tensor([0, 1, 1, 0, 1]), temperature=2.0
    )
    assert nontarget_part.item() == 0
    torch.testing.assert_close(target_part, kd(student[:, :2], teacher[:, :2], temperature=2.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_huge_logits(dtype):
    """Beyond +-1e4, where masks by large numbers and logs of sums break: values known in closed form."""
    size = 2.0**14  # 16384 and its double are exact in every type
    student = torch.tensor([[0, -2 * size, -size]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-2 * size, 0, -size]], dtype=dtype)
    target = torch.tensor([0])
    with torch.autocast("cpu", torch.bfloat16):
        value = kd(student, teacher, temperature=1.0)
        target_part, nontarget_part = dkd_terms(student, teacher, target, temperature=1.0)
    assert value.dtype == torch.float32
    assert value.item() == 2 * size  # the teacher is sure of class 1, where the student's log probability is -2 size
    assert (
        target_part.item() == size
    )  # the teacher is sure of "not class 0", the student's log odds are size against it
    assert nontarget_part.item() == size  # class 1 for sure; the student prefers class 2 by size
    (value + target_part + nontarget_part).backward()
    assert student.grad.dtype == dtype
    # kd (1, -1, 0), target part (1, 0, -1): its -1 falls on the largest other class, non-target part (0, -1, 1)
    assert student.grad.tolist() == [[2, -2, 0]]


def test_half_precision_is_computed_in_float32(logits):
    student, teacher, target = logits
    student, teacher = student.detach().bfloat16(), teacher.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        values = both(student, teacher, target)
    torch.testing.assert_close(values, both(student.float(), teacher.float(), target), rtol=0, atol=0)
