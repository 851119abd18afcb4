"""Losses on relations within the batch: identities, derivatives, equal images, one image alone."""

import pytest
import torch
from torch.autograd import gradcheck

from ltkd import losses


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SAME_DIMENSIONS = {
    "correlation_congruence": losses.correlation_congruence,
    "correlation_congruence_kernel": lambda s, t: losses.correlation_congruence_kernel(s, t, gamma=0.4, order=2),
}
TEACHER_FIXED = {
    "similarity_preserving": losses.similarity_preserving,
    "relational": lambda s, t: losses.relational(s, t, distance_weight=25.0, angle_weight=50.0),
    "pkt": losses.pkt,
}
ALL = TEACHER_FIXED | SAME_DIMENSIONS


@pytest.fixture(params=ALL.values(), ids=ALL.keys())
def loss(request):
    return request.param


def test_derivatives(loss):
    student, teacher = rows(5, 6).requires_grad_(), rows(5, 6, seed=1)
    assert gradcheck(lambda s: loss(s, teacher), student, fast_mode=True)


@pytest.mark.parametrize("name", TEACHER_FIXED)
def test_no_gradient_reaches_the_teacher_and_dimensions_may_differ(name):
    student, teacher = rows(5, 3).requires_grad_(), rows(5, 8, seed=1).requires_grad_()
    TEACHER_FIXED[name](student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", SAME_DIMENSIONS)
def test_both_embeddings_of_correlation_congruence_are_trained(name):
    student, teacher = rows(5, 6).requires_grad_(), rows(5, 6, seed=1).requires_grad_()
    assert gradcheck(SAME_DIMENSIONS[name], (student, teacher), fast_mode=True)
    SAME_DIMENSIONS[name](student, teacher).backward()
    assert teacher.grad.abs().sum() > 0


def test_equal_inputs_give_zero_and_no_gradient(loss):
    student = rows(5, 6).requires_grad_()
    value = loss(student, student.detach().clone())
    (gradient,) = torch.autograd.grad(value, student)
    assert abs(value.item()) < 1e-15
    assert gradient.abs().max() < 1e-8  # pkt: its constant 1e-7 stands inside the logarithm alone


@pytest.mark.parametrize("name", ALL)
def test_only_the_neighbours_depend_on_the_order_of_the_batch(name):
    student, teacher = rows(6, 4), rows(6, 4, seed=1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    difference = (ALL[name](student[order], teacher[order]) - ALL[name](student, teacher)).abs().item()
    if name == "correlation_congruence":
        assert difference > 1e-3
    else:
        assert difference < 1e-12


def test_they_are_statistics_of_the_batch(loss):
    student, teacher = rows(6, 4), rows(6, 4, seed=1)
    halves = (loss(student[:3], teacher[:3]) + loss(student[3:], teacher[3:])) / 2
    assert (halves - loss(student, teacher)).abs() > 1e-6


@pytest.mark.parametrize("name", TEACHER_FIXED)
def test_one_image_alone_gives_zero(name):
    student = rows(1, 4).requires_grad_()
    value = TEACHER_FIXED[name](student, rows(1, 4, seed=1))
    value.backward()
    assert value.item() == 0
    assert student.grad.isfinite().all()


def test_one_image_alone_has_no_neighbour():
    assert losses.correlation_congruence(rows(1, 4), rows(1, 4, seed=1)).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["zero", "equal", "two equal", "one zero", "one dimension"])
def test_degenerate_batches_have_finite_gradients(loss, dtype, case):
    student, teacher = rows(5, 4).to(dtype), rows(5, 4, seed=1).to(dtype)
    if case == "zero":
        student = torch.zeros_like(student)
    if case == "equal":
        student = student[:1].expand(5, 4).clone()
    if case == "two equal":
        student[1] = student[0]
    if case == "one zero":
        student[2] = 0
    if case == "one dimension":
        student, teacher = student[:, :1].clone(), teacher[:, :1]
    student.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_distances_are_relative_and_angles_do_not_move():
    student, teacher = rows(5, 4), rows(5, 4, seed=1)
    moved = losses.relational_terms(3 * student + 2, teacher / 5 - 1)
    torch.testing.assert_close(moved, losses.relational_terms(student, teacher))


def test_distances_of_close_embeddings_keep_their_digits():
    """Distances by inner products would be noise here: the squares are 1e8 times the squared distances."""
    student, teacher = rows(5, 4), rows(5, 4, seed=1)
    far = (student + 1e4).float(), teacher.float()
    exact = losses.relational_terms((student + 1e4).float().double(), teacher.float().double())
    torch.testing.assert_close(losses.relational_terms(*far), exact, rtol=1e-4, atol=1e-6, check_dtype=False)


def test_kernel_expansion_nears_the_gaussian_kernel():
    student, teacher = rows(5, 4), rows(5, 4, seed=1)
    value = losses.correlation_congruence_kernel(student, teacher, gamma=0.4, order=20)

    def gaussian(x):
        x = x / x.norm(dim=1, keepdim=True)
        return torch.exp(-0.4 * torch.cdist(x, x).square())

    torch.testing.assert_close(value, (gaussian(student) - gaussian(teacher)).square().mean())


def test_half_precision_is_computed_in_float32(loss):
    student, teacher = rows(5, 4).bfloat16(), rows(5, 4, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
    torch.testing.assert_close(value, loss(student.float(), teacher.float()), rtol=0, atol=0)
