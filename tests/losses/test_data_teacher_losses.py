"""Losses of the data and teacher methods against loops, identities, derivatives, and the edge of the number range."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck

from ltkd import losses

from .slow_reference import kd as slow_kd
from .slow_reference import kl, mean, softmax

B, C, S = 5, 7, 3
LABELS = torch.tensor([0, 6, 3, 3, 1])


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher, reference = 3 * torch.randn(3, B, C, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher, reference


@pytest.fixture
def samples():
    return 3 * torch.randn(S, B, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# bayesian_teacher


def slow_bayesian(student, samples, teacher_temperature, student_temperature):
    values = []
    for b, s in enumerate(student):
        p = [softmax(sample[b], teacher_temperature) for sample in samples]
        average = [mean(row[c] for row in p) for c in range(len(s))]
        values.append(kl(average, softmax(s, student_temperature)))
    return teacher_temperature * student_temperature * mean(values)


def bayesian(student, samples, teacher_temperature=4.0, student_temperature=1.5):
    return losses.bayesian_teacher(
        student, samples, teacher_temperature=teacher_temperature, student_temperature=student_temperature
    )


def test_bayesian_equals_the_loop_and_its_derivative(logits, samples):
    student, _, _ = logits
    expected = slow_bayesian(student.tolist(), samples.tolist(), 4.0, 1.5)
    assert bayesian(student, samples).item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(lambda z: bayesian(z, samples), student)


def test_bayesian_of_equal_samples_is_kd_with_one_temperature(logits):
    student, teacher, _ = logits
    value = bayesian(student, teacher.expand(S, B, C), 3.0, 3.0)
    torch.testing.assert_close(value, losses.kd(student, teacher, temperature=3.0))
    assert bayesian(student, student.detach().expand(S, B, C), 3.0, 3.0).item() == pytest.approx(0, abs=1e-12)


def test_samples_are_averaged_as_probabilities(logits):
    """Two samples, each sure of a class of its own: half and half, whatever the size of their logits."""
    student = logits[0][:1]
    two = torch.zeros(2, 1, C, dtype=torch.float64)
    two[0, 0, 2], two[1, 0, 5] = 1000.0, 20.0
    q = (student / 1.0).log_softmax(1)[0]
    expected = -math.log(2) - (q[2] + q[5]) / 2
    torch.testing.assert_close(bayesian(student, two, 1.0, 1.0), expected, rtol=1e-6, atol=0)


# reward extrapolation


def test_reward_scale_one_is_the_teacher_whatever_the_reference(logits):
    student, teacher, reference = logits
    target = losses.extrapolated_target(teacher, reference, reward_scale=1.0, temperature=2.0)
    torch.testing.assert_close(target, (teacher / 2).softmax(1))
    forward = losses.forward_kl_to_target(student, teacher, reference, reward_scale=1.0, temperature=3.0)
    torch.testing.assert_close(forward, losses.kd(student, teacher, temperature=3.0))
    reverse = losses.reverse_kl_to_target(student, teacher, reference, reward_scale=1.0, temperature=3.0)
    assert reverse.item() == pytest.approx(slow_kd(teacher.tolist(), student.tolist(), 3.0), rel=1e-12)


def test_the_target_is_the_power_of_teacher_over_reference(logits):
    _, teacher, reference = logits
    weight = teacher.softmax(1) ** 1.7 / reference.softmax(1) ** 0.7
    expected = weight / weight.sum(1, keepdim=True)
    torch.testing.assert_close(losses.extrapolated_target(teacher, reference, reward_scale=1.7), expected)


def test_with_the_prior_the_target_is_a_logit_adjusted_teacher(logits):
    _, teacher, _ = logits
    log_prior = torch.tensor([500.0, 300, 180, 108, 65, 39, 5], dtype=torch.float64).log()
    log_prior = log_prior - log_prior.logsumexp(0)
    target = losses.extrapolated_target(teacher, log_prior, reward_scale=1.25)
    torch.testing.assert_close(target, (1.25 * teacher - 0.25 * log_prior).softmax(1))
    assert target[:, -1].sum() > (1.25 * teacher).softmax(1)[:, -1].sum()


@pytest.mark.parametrize("divergence", [losses.reverse_kl_to_target, losses.forward_kl_to_target])
def test_extrapolation_derivatives_offsets_and_scaling(logits, divergence):
    student, teacher, reference = logits
    settings = {"reward_scale": 1.5, "temperature": 2.0}
    value = divergence(student, teacher, reference, **settings)
    assert gradcheck(lambda z: divergence(z, teacher, reference, **settings), student)
    shift = torch.linspace(-5, 5, B, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(divergence(student + shift, teacher - shift, reference + 3 * shift, **settings), value)
    scaled = divergence(3 * student, 3 * teacher, 3 * reference, reward_scale=1.5, temperature=6.0)
    torch.testing.assert_close(scaled, 9 * value)


# comparative_kd


def test_comparisons_equal_the_loop(logits):
    student, teacher, _ = logits
    positive, negative = torch.tensor([[0, 1], [2, 4]]), torch.tensor([[3], [0]])
    value = losses.comparative_kd(student[positive], student[negative], teacher[positive], teacher[negative])
    labels = losses.comparative_labels(student[positive], student[negative], LABELS[positive], LABELS[negative])

    def comparison(rows, g, c):
        return mean(rows[i][c] for i in positive[g].tolist()) - mean(rows[i][c] for i in negative[g].tolist())

    one_hot = F.one_hot(LABELS, C).tolist()
    pairs = [(g, c) for g in range(2) for c in range(C)]
    s, t = student.tolist(), teacher.tolist()
    expected = mean((comparison(s, g, c) - comparison(t, g, c)) ** 2 for g, c in pairs)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    expected = mean((comparison(s, g, c) - comparison(one_hot, g, c)) ** 2 for g, c in pairs)
    assert labels.item() == pytest.approx(expected, rel=1e-12)


def test_a_common_offset_of_all_logits_does_not_show_in_comparisons(logits):
    student, teacher, _ = logits
    offset = torch.linspace(-2, 2, C, dtype=torch.float64)  # the same for every image, another for every class
    shifted = teacher + offset
    pair = torch.arange(B).unsqueeze(1), torch.tensor([1, 2, 3, 4, 0]).unsqueeze(1)
    values = [losses.comparative_kd(*(student[p] for p in pair), *(z[p] for p in pair)) for z in (teacher, shifted)]
    torch.testing.assert_close(values[0], values[1])
    same = losses.comparative_kd(*(shifted[p] for p in pair), *(teacher[p] for p in pair))
    assert same.item() == pytest.approx(0, abs=1e-20)
    positive, negative = (LABELS[p] for p in pair)
    perfect = F.one_hot(LABELS, C).double() + offset
    assert losses.comparative_labels(*(perfect[p] for p in pair), positive, negative).item() < 1e-20


def test_comparative_derivatives(logits):
    student, teacher, _ = logits
    positive, negative = torch.tensor([[0, 1], [2, 4]]), torch.tensor([[3], [0]])
    rest = teacher[positive], teacher[negative]
    assert gradcheck(lambda z: losses.comparative_kd(z[positive], z[negative], *rest), student)
    targets = LABELS[positive], LABELS[negative]
    assert gradcheck(lambda z: losses.comparative_labels(z[positive], z[negative], *targets), student)


# mixup


@pytest.mark.parametrize("lam", [torch.tensor(0.3), torch.linspace(0, 1, B)])
def test_mixup_cross_entropy_is_that_of_the_mixed_label(logits, lam):
    student, _, _ = logits
    partner = LABELS.roll(1)
    lam = lam.double()
    weights = lam.expand(B).unsqueeze(1)
    label = weights * F.one_hot(LABELS, C) + (1 - weights) * F.one_hot(partner, C)
    expected = -(label * student.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses.mixup_cross_entropy(student, LABELS, partner, lam), expected)
    assert gradcheck(lambda z: losses.mixup_cross_entropy(z, LABELS, partner, lam), student)


def test_mixup_ends_are_the_two_labels(logits):
    student, _, _ = logits
    partner = LABELS.roll(1)
    for lam, target in ((1.0, LABELS), (0.0, partner)):
        value = losses.mixup_cross_entropy(student, LABELS, partner, torch.tensor(lam, dtype=torch.float64))
        torch.testing.assert_close(value, losses.cross_entropy(student, target))


def test_logit_mse_is_a_mean_over_images_and_classes(logits):
    student, teacher, _ = logits
    pairs = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    assert losses.logit_mse(student, teacher).item() == pytest.approx(mean((s - t) ** 2 for s, t in pairs), rel=1e-12)
    assert gradcheck(lambda z: losses.logit_mse(z, teacher), student)


# input_gradient_alignment


def small_network(seed):
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, C)
    return nn.Sequential(*layers).double()


@pytest.fixture
def pictures():
    return torch.randn(B, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def alignment(student, teacher, images, squared):
    images = images.clone().requires_grad_()
    return losses.input_gradient_alignment(student(images), teacher(images), LABELS, images, squared=squared)


@pytest.mark.parametrize("squared", [False, True])
def test_alignment_equals_one_image_at_a_time(pictures, squared):
    student, teacher = small_network(0), small_network(1)
    expected = []
    for image, label in zip(pictures, LABELS, strict=True):
        image = image.unsqueeze(0).requires_grad_()
        gradients = [
            torch.autograd.grad(F.cross_entropy(network(image), label.unsqueeze(0)), image)[0]
            for network in (student, teacher)
        ]
        norm = (gradients[0] - gradients[1]).norm().item()
        expected.append(norm**2 if squared else norm)
    assert alignment(student, teacher, pictures, squared).item() == pytest.approx(mean(expected), rel=1e-9)


@pytest.mark.parametrize("squared", [False, True])
def test_alignment_has_the_derivative_of_its_value(pictures, squared):
    """Second derivatives, by finite differences of the weights."""
    student, teacher = small_network(0), small_network(1).requires_grad_(False)
    assert gradcheck(lambda *_: alignment(student, teacher, pictures, squared), list(student.parameters()))


def test_alignment_gives_the_teacher_no_gradient_and_frees_its_graph(pictures):
    student, teacher = small_network(0), small_network(1)
    images = pictures.requires_grad_()
    teacher_logits = teacher(images)
    losses.input_gradient_alignment(student(images), teacher_logits, LABELS, images).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in student[0].parameters())
    with pytest.raises(RuntimeError, match="second time"):
        teacher_logits.sum().backward()


def test_alignment_of_equal_networks_is_zero_with_a_finite_gradient(pictures):
    student, teacher = small_network(0), small_network(0)
    assert alignment(student, teacher, pictures, True).item() == 0
    value = alignment(student, teacher, pictures, False)
    assert value.item() < 2e-6  # the root of the epsilon that keeps its slope finite
    value.backward()
    assert all(parameter.grad.isfinite().all() for parameter in student.parameters())


def test_alignment_does_not_shrink_with_the_batch(pictures):
    student, teacher = small_network(0), small_network(1)
    twice = torch.cat((pictures, pictures)).requires_grad_()
    value = losses.input_gradient_alignment(student(twice), teacher(twice), LABELS.repeat(2), twice)
    torch.testing.assert_close(value, alignment(student, teacher, pictures, False))


# speculative


def test_acceptance_by_rank(logits):
    _, teacher, _ = logits
    order = teacher.argsort(dim=1, descending=True)
    for k in range(1, C):
        for rank in range(C):
            accepted = losses.speculative_acceptance(order[:, rank], teacher, k=k)
            assert accepted.tolist() == [rank < k] * B


def test_sampled_classes_have_the_softmax_as_frequencies():
    logits = torch.tensor([[0.0, 1.0, 2.0, -30.0]]).expand(40_000, 4)
    torch.manual_seed(0)
    classes = losses.sample_class(logits, temperature=0.5)
    frequency = torch.bincount(classes, minlength=4) / len(classes)
    expected = (logits[0] / 0.5).softmax(0)
    torch.testing.assert_close(frequency, expected, atol=4 * 0.5 / 200, rtol=0)  # four standard errors
    assert frequency[3] == 0
    torch.manual_seed(0)
    assert torch.equal(losses.sample_class(logits, temperature=0.5), classes)


def test_masked_losses_leave_images_out_but_divide_by_all(logits):
    student, teacher, _ = logits
    mask = torch.tensor([True, False, True, True, False])
    kept = losses.kd(student[mask], teacher[mask], temperature=3.0) * 3 / B
    torch.testing.assert_close(losses.masked_kd(student, teacher, mask, temperature=3.0), kept)
    kept = losses.cross_entropy(student[mask], LABELS[mask]) * 3 / B
    torch.testing.assert_close(losses.masked_cross_entropy(student, LABELS, mask), kept)
    assert gradcheck(lambda z: losses.masked_kd(z, teacher, mask, temperature=3.0), student)
    own = torch.where(mask.unsqueeze(1), teacher, student.detach())  # the student's own distribution as target
    torch.testing.assert_close(
        losses.masked_kd(student, teacher, mask, temperature=3.0), losses.kd(student, own, temperature=3.0)
    )
    nothing = torch.zeros(B, dtype=torch.bool)
    assert losses.masked_kd(student, teacher, nothing, temperature=3.0).item() == 0


# all of them

PAIRS = torch.arange(B).unsqueeze(1), torch.tensor([1, 2, 3, 4, 0]).unsqueeze(1)
ON_LOGITS = {
    "bayesian_teacher": lambda s, t: bayesian(s, torch.stack((t, t.flip(0)))),
    "reverse_kl_to_target": lambda s, t: losses.reverse_kl_to_target(s, t, t.flip(0), reward_scale=1.25),
    "forward_kl_to_target": lambda s, t: losses.forward_kl_to_target(s, t, t.flip(0), reward_scale=1.25),
    "comparative_kd": lambda s, t: losses.comparative_kd(*(s[p] for p in PAIRS), *(t[p] for p in PAIRS)),
    "mixup_cross_entropy": lambda s, t: losses.mixup_cross_entropy(s, LABELS, LABELS.roll(1), torch.tensor(0.3)),
    "logit_mse": losses.logit_mse,
    "masked_kd": lambda s, t: losses.masked_kd(s, t, LABELS > 1, temperature=2.0),
    "masked_cross_entropy": lambda s, t: losses.masked_cross_entropy(s, LABELS, LABELS > 1),
}


@pytest.mark.parametrize("name", ON_LOGITS)
def test_no_gradient_reaches_the_teacher(logits, name):
    student, teacher, _ = logits
    teacher.requires_grad_()
    ON_LOGITS[name](student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ON_LOGITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_huge_logits_in_half_precision_are_computed_in_float32(logits, name, dtype):
    student, teacher = ((1e4 * z.detach().sign()).to(dtype) for z in logits[:2])
    student = student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = ON_LOGITS[name](student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()
    exact = ON_LOGITS[name](student.detach().double(), teacher.double())
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
