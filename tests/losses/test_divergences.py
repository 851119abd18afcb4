"""Alpha-beta and power divergences: the definition, its limits, the identities between members."""

import math

import pytest
import torch

from ltkd.losses import alpha_beta_divergence, kd, power_divergence

from . import slow_logit

B, C = 4, 6


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, B, C, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def divergence(logits, a, b, temperature=2.0):
    return alpha_beta_divergence(*logits, alpha=a, beta=b, temperature=temperature)


POINTS = [
    (0.8, 0.3),
    (0.3, 0.8),
    (0.5, 0.5),
    (2.0, 1.0),
    (1.5, -0.2),
    (-0.2, 1.5),
    (-0.5, -0.7),
    (-1.5, 0.3),
    (1e-3, 0.5),
]


@pytest.mark.parametrize(("a", "b"), POINTS)
def test_the_definition(logits, a, b):
    expected = slow_logit.alpha_beta(logits[0].tolist(), logits[1].tolist(), a, b, 2.0)
    assert divergence(logits, a, b).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("limit", "direction"),
    [((0.7, 0.0), (0, 1)), ((0.0, 0.7), (1, 0)), ((0.6, -0.6), (1, 1)), ((0.0, 0.0), (1, 2)), ((0.0, 0.0), (3, -1))],
)
@pytest.mark.parametrize("side", [1, -1])
def test_the_limits_are_continuous(logits, limit, direction, side):
    """By steps from outside, as the loop can still compute them, and across the switch to the last form."""
    at = divergence(logits, *limit).item()
    for step in (1e-2, 1e-3, 2e-4, 5e-5, 1e-9):
        near = [place + side * step * way for place, way in zip(limit, direction, strict=True)]
        assert divergence(logits, *near).item() == pytest.approx(at, rel=20 * step + 1e-12)
        if step >= 1e-3:
            loop = slow_logit.alpha_beta(logits[0].tolist(), logits[1].tolist(), *near, 2.0)
            assert divergence(logits, *near).item() == pytest.approx(loop, rel=1e-6)


def test_the_limits_are_the_papers_expressions(logits):
    q, p = ((z / 2).softmax(1) for z in logits)
    a = 0.7
    b_zero = (p**a * (p**a / q**a).log() - p**a + q**a).sum(1).mean() / a**2
    a_zero = (q**a * (q**a / p**a).log() - q**a + p**a).sum(1).mean() / a**2
    sum_zero = ((q**a / p**a).log() + (p / q) ** a - 1).sum(1).mean() / a**2
    both_zero = (p.log() - q.log()).square().sum(1).mean() / 2
    for point, expected in (((a, 0.0), b_zero), ((0.0, a), a_zero), ((a, -a), sum_zero), ((0.0, 0.0), both_zero)):
        torch.testing.assert_close(divergence(logits, *point), expected)


def test_known_members(logits):
    student, teacher = logits
    forward = kd(student, teacher, temperature=2.0) / 4
    q, p = ((z / 2).softmax(1) for z in logits)
    torch.testing.assert_close(divergence(logits, 1.0, 0.0), forward)
    torch.testing.assert_close(divergence(logits, 0.0, 1.0), (q * (q / p).log()).sum(1).mean())
    torch.testing.assert_close(divergence(logits, 1.0, 1.0), (p - q).square().sum(1).mean() / 2)
    hellinger = 2 * (p.sqrt() - q.sqrt()).square().sum(1).mean()
    torch.testing.assert_close(divergence(logits, 0.5, 0.5), hellinger)


@pytest.mark.parametrize("power", [2 / 3, -0.5, 1.0, 0.0, -1.0, -1.7])
def test_power_divergence_is_the_member_of_sum_one(logits, power):
    value = power_divergence(*logits, power=power, temperature=2.0)
    torch.testing.assert_close(value, divergence(logits, 1 + power, -power))
    student_first = power_divergence(*logits, power=power, temperature=2.0, teacher_first=False)
    torch.testing.assert_close(student_first, power_divergence(*reversed(logits), power=power, temperature=2.0))
    torch.testing.assert_close(student_first, power_divergence(*logits, power=-(power + 1), temperature=2.0))
    if power not in (0.0, -1.0):
        q, p = ((z / 2).softmax(1) for z in logits)
        definition = ((p * (p / q) ** power).sum(1).mean() - 1) / (power * (power + 1))
        torch.testing.assert_close(value, definition)


@pytest.mark.parametrize(("a", "b"), POINTS)
def test_exchanging_the_distributions_exchanges_the_parameters(logits, a, b):
    student, teacher = logits
    torch.testing.assert_close(divergence((teacher, student), b, a), divergence((student, teacher), a, b))


@pytest.mark.parametrize(
    ("a", "b"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (5 / 3, -2 / 3), (0.8, 0.3), (0.2, 0.2), (0.0, 0.0)]
)
def test_curvature_where_the_distributions_meet(logits, a, b):
    """1/2 sum p^(a+b-2) (p - q)^2: one for all members with a + b = 1, as KL."""
    _, teacher = logits
    p = teacher.softmax(1)
    step = 1e-4 * torch.randn(B, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    student = teacher + step
    q = student.softmax(1)
    expected = (p ** (a + b - 2) * (p - q) ** 2).sum(1).mean() / 2
    value = divergence((student, teacher), a, b, temperature=1.0)
    torch.testing.assert_close(value, expected, rtol=1e-3, atol=0)


def test_float32_keeps_its_digits_near_the_limits(logits):
    """The plain formula divides differences of rounded numbers by a * b: here there is nothing left of it at 1e-5."""
    exact = divergence(logits, 1.0, 1e-5)
    single = divergence([z.float() for z in logits], 1.0, 1e-5)
    assert single.item() == pytest.approx(exact.item(), rel=1e-4)


def test_an_unbounded_power_stops_at_its_bound():
    """A student that excludes the teacher's class: e^60 and no gradient from there, in place of infinity."""
    student = torch.tensor([[-200.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, -200.0]])
    value = power_divergence(student, teacher, power=1.0, temperature=1.0)
    assert value.item() == pytest.approx(math.exp(60) / 2, rel=1e-5)
    value.backward()
    assert student.grad.isfinite().all()
    mild = power_divergence(student.detach() / 8, teacher, power=1.0, temperature=1.0)
    assert mild.item() == pytest.approx((math.exp(25) - 1) / 2, rel=1e-5)  # below the bound: (p/q - 1) / 2
