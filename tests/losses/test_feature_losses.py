"""Losses on feature maps: loops, identities, derivatives, and the maps that divide by zero elsewhere."""

import pytest
import torch
from torch.autograd import gradcheck

from ltkd import losses

from . import slow_feature_reference as slow


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def like(constant, feature_map):
    return constant.to(torch.promote_types(feature_map.dtype, torch.float32))


CLASSIFIER = maps(5, 4, seed=9)
MARGIN = -maps(4, seed=8).abs()
LOG_SCALE = maps(4, seed=7)

# loss(student map, teacher map) for maps of equal shape [B, 4, H, W]; zero where they are equal
MATCHING = {
    "mean_squared_error": losses.mean_squared_error,
    "attention_transfer": losses.attention_transfer,
    "attention_transfer p=1": lambda s, t: losses.attention_transfer(s, t, p=1),
    "nst": losses.nst,
    "hcl": losses.hcl,
    "ofd_partial_l2": lambda s, t: losses.ofd_partial_l2(s, t, like(torch.full((4,), -torch.inf), s)),
    "class_attention": lambda s, t: losses.class_attention(
        s, t, like(CLASSIFIER, s), like(CLASSIFIER, s), resolution=2, normalise=False
    ),
    "class_attention normalised": lambda s, t: losses.class_attention(
        s, t, like(CLASSIFIER, s), like(CLASSIFIER, s), resolution=2, normalise=True
    ),
}
ALL = MATCHING | {
    "ofd_partial_l2 with margins": lambda s, t: losses.ofd_partial_l2(s, t, like(MARGIN, s)),
    "variational_information": lambda s, t: losses.variational_information(s, t, like(LOG_SCALE, s), eps=1e-5),
}


@pytest.fixture(params=ALL.values(), ids=ALL.keys())
def loss(request):
    return request.param


def test_derivatives(loss):
    student, teacher = maps(3, 4, 5, 5).requires_grad_(), maps(3, 4, 5, 5, seed=1)
    assert gradcheck(lambda s: loss(s, teacher), student, fast_mode=True)


def test_no_gradient_reaches_the_teacher(loss):
    student, teacher = maps(3, 4, 5, 5).requires_grad_(), maps(3, 4, 5, 5, seed=1).requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_halves_of_a_batch_average_to_the_whole_in_any_order(loss):
    student, teacher = maps(4, 4, 5, 5), maps(4, 4, 5, 5, seed=1)
    whole = loss(student, teacher)
    torch.testing.assert_close((loss(student[:2], teacher[:2]) + loss(student[2:], teacher[2:])) / 2, whole)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(loss(student[order], teacher[order]), whole)


def test_half_precision_is_computed_in_float32(loss):
    student, teacher = maps(3, 4, 5, 5).bfloat16(), maps(3, 4, 5, 5, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.float(), teacher.float()), rtol=0, atol=0)


@pytest.mark.parametrize("name", MATCHING)
def test_equal_maps_give_zero_and_no_gradient(name):
    student = maps(3, 4, 5, 5).requires_grad_()
    value = MATCHING[name](student, student.detach().clone())
    (gradient,) = torch.autograd.grad(value, student)
    assert abs(value.item()) < 1e-15
    assert gradient.abs().max() < 1e-15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 4, 5, 5), (3, 4, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
def test_zero_maps_single_images_and_single_pixels_have_modest_gradients(loss, dtype, shape, zero):
    student, teacher = maps(*shape).to(dtype), maps(*shape, seed=1).to(dtype)
    if zero in ("student", "both"):
        student = torch.zeros_like(student)
    if zero in ("teacher", "both"):
        teacher = torch.zeros_like(teacher)
    student.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 100  # an eps in a denominator would give up to its reciprocal


@pytest.mark.parametrize("function", [losses.attention_transfer, losses.nst])
def test_channels_may_differ_and_one_channel_is_enough(function):
    student, teacher = maps(3, 1, 4, 4).requires_grad_(), maps(3, 6, 4, 4, seed=1)
    assert gradcheck(lambda s: function(s, teacher), student, fast_mode=True)


@pytest.mark.parametrize("function", [losses.attention_transfer, losses.nst])
def test_the_larger_map_is_pooled_before_anything_else(function):
    small, large = maps(3, 2, 4, 4), maps(3, 5, 8, 8, seed=1)
    shrunk = large.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(function(small, large), function(small, shrunk))
    torch.testing.assert_close(function(large, small), function(shrunk, small))


@pytest.mark.parametrize(
    ("student_shape", "teacher_shape"), [((2, 3, 4, 4), (2, 5, 4, 4)), ((2, 5, 2, 2), (2, 7, 2, 2))]
)
def test_nst_equals_the_loop_whichever_gram_matrices_are_smaller(student_shape, teacher_shape):
    student, teacher = maps(*student_shape), maps(*teacher_shape, seed=1)
    expected = slow.nst(student.tolist(), teacher.tolist())
    assert losses.nst(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 7, 8])
def test_hcl_equals_the_loop_at_every_height(height):
    student, teacher = maps(2, 3, height, height), maps(2, 3, height, height, seed=1)
    assert losses.hcl(student, teacher).item() == pytest.approx(slow.hcl(student.tolist(), teacher.tolist()), rel=1e-12)


def test_attention_of_scaled_maps_is_the_same():
    student, teacher = maps(3, 4, 5, 5), maps(3, 6, 5, 5, seed=1)
    torch.testing.assert_close(
        losses.attention_transfer(7 * student, teacher / 3), losses.attention_transfer(student, teacher)
    )


def test_class_attention_at_one_cell_compares_logits_without_bias():
    student, teacher = maps(3, 4, 6, 6), maps(3, 5, 4, 4, seed=1)
    student_weight, teacher_weight = maps(7, 4, seed=2), maps(7, 5, seed=3)
    value = losses.class_attention(student, teacher, student_weight, teacher_weight, resolution=1, normalise=False)
    logits = student.mean(dim=(2, 3)) @ student_weight.T, teacher.mean(dim=(2, 3)) @ teacher_weight.T
    torch.testing.assert_close(value, (logits[0] - logits[1]).square().mean())


def test_class_attention_trains_the_map_and_the_classifier_of_the_student_only():
    student, teacher = maps(3, 4, 6, 6).requires_grad_(), maps(3, 5, 6, 6, seed=1).requires_grad_()
    student_weight, teacher_weight = maps(7, 4, seed=2).requires_grad_(), maps(7, 5, seed=3).requires_grad_()

    def loss(feature_map, weight):
        return losses.class_attention(feature_map, teacher, weight, teacher_weight, resolution=2, normalise=True)

    assert gradcheck(loss, (student, student_weight), fast_mode=True)
    loss(student, student_weight).backward()
    assert student.grad.abs().sum() > 0
    assert student_weight.grad.abs().sum() > 0
    assert teacher.grad is None
    assert teacher_weight.grad is None


def test_class_attention_above_the_maps_size_repeats_its_values():
    student, teacher = maps(3, 4, 2, 2), maps(3, 4, 2, 2, seed=1)
    at_size, above = (
        losses.class_attention(student, teacher, CLASSIFIER, CLASSIFIER, resolution=r, normalise=False) for r in (2, 4)
    )
    torch.testing.assert_close(above, at_size)


def test_variational_information_is_a_gaussian_log_likelihood_and_trains_mean_and_scale():
    mean, teacher = maps(3, 4, 5, 5).requires_grad_(), maps(3, 4, 5, 5, seed=1)
    log_scale = LOG_SCALE.clone().requires_grad_()
    value = losses.variational_information(mean, teacher, log_scale, eps=1e-5)
    variance = (1 + log_scale.exp()).log() + 1e-5
    gaussian = torch.distributions.Normal(mean, variance.sqrt()[:, None, None])
    constant = 0.5 * torch.tensor(2 * torch.pi, dtype=torch.float64).log()
    torch.testing.assert_close(value, -gaussian.log_prob(teacher).mean() - constant)
    assert gradcheck(
        lambda m, a: losses.variational_information(m, teacher, a, eps=1e-5), (mean, log_scale), fast_mode=True
    )


@pytest.mark.parametrize("scale", [-1000.0, 100.0, 1000.0])
def test_variational_information_at_log_scales_that_overflow_an_exponential(scale):
    mean, log_scale = torch.ones(2, 4, 3, 3), torch.full((4,), scale, requires_grad=True)
    value = losses.variational_information(mean, torch.zeros(2, 4, 3, 3), log_scale, eps=1e-5)
    value.backward()
    variance = max(scale, 0) + 1e-5
    assert value.item() == pytest.approx(0.5 * (1 / variance + torch.tensor(variance).log().item()), rel=1e-5)
    assert log_scale.grad.isfinite().all()


def test_initial_log_scale_gives_the_variance():
    for variance in (0.01, 1.0, 5.0, 100.0):
        start = torch.tensor(losses.vid_initial_log_scale(variance, 1e-5), dtype=torch.float64)
        assert (torch.nn.functional.softplus(start) + 1e-5).item() == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize(("weight", "bias"), [(1.0, 0.0), (0.5, -1.2), (-2.0, 3.0), (0.3, 0.4)])
def test_ofd_margin_is_the_mean_of_the_negative_values(weight, bias):
    margin = losses.ofd_margin(torch.tensor([weight], dtype=torch.float64), torch.tensor([bias], dtype=torch.float64))
    x = torch.linspace(-40, 0, 4_000_001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((x - bias) / weight) ** 2)
    expected = torch.trapezoid(x * density, x) / torch.trapezoid(density, x)
    assert margin.item() == pytest.approx(expected.item(), rel=1e-6)


def test_ofd_margin_where_nothing_is_negative_or_nothing_varies():
    weight = torch.tensor([0.5, -0.5, 0.0, 0.0, 0.0, 1e-30])
    bias = torch.tensor([2.0, 5.0, 1.0, -1.0, 0.0, -2.0])
    margin = losses.ofd_margin(weight, bias)
    torch.testing.assert_close(margin, torch.tensor([-1.5, -1.5, 0.0, -1.0, 0.0, -2.0]))


def test_ofd_has_no_gradient_where_teacher_and_student_are_low():
    teacher = torch.tensor([2.0, -3.0, -3.0, -0.5]).view(1, 1, 2, 2)
    student = torch.tensor([1.0, -5.0, 0.5, -0.5]).view(1, 1, 2, 2).requires_grad_()
    value = losses.ofd_partial_l2(student, teacher, torch.tensor([-1.0]))
    (gradient,) = torch.autograd.grad(value, student)
    # targets 2, -1, -1, -0.5: the first counts as the teacher is positive, the third as the student is above
    assert value.item() == 1 + 1.5**2
    assert gradient.flatten().tolist() == [-2.0, 0.0, 3.0, 0.0]


def test_fusion_equals_the_two_weights_of_each_pixel():
    student, deeper = maps(2, 3, 4, 4), maps(2, 3, 2, 2, seed=1)
    weight, bias = maps(2, 6, seed=2), maps(2, seed=3)
    fused = losses.abf_fuse(student, deeper, weight, bias)
    for b, y, x in ((0, 0, 0), (1, 3, 2), (0, 1, 3)):
        own, other = student[b, :, y, x], deeper[b, :, y // 2, x // 2]
        attention = torch.sigmoid(weight @ torch.cat((own, other)) + bias)
        torch.testing.assert_close(fused[b, :, y, x], attention[0] * own + attention[1] * other)
