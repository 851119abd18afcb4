"""The losses of the recent baselines: against loops, derivatives, identities, and inputs at the edge."""

import pytest
import torch
from torch.autograd import gradcheck

from ltkd import losses

from . import slow_losses_2026 as slow

B, C, T = 6, 5, 2.0
COUNTS = torch.tensor([400, 90, 30, 8, 3])
TARGET = torch.tensor([0, 4, 1, 1, 3, 2])
GKL = {"alpha": 3.0, "beta": 2.0, "temperature": T}
ACCURACY = torch.tensor([0.9, 0.7, 0.5, 0.2, 0.0], dtype=torch.float64)
DRAWN = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64)
PRIOR = torch.tensor([0.6, 0.2, 0.1, 0.07, 0.03], dtype=torch.float64)
WEIGHTS = torch.rand(B, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

LOGITS = {
    "gkl": lambda s, t, y: losses.gkl(s, t, y, means(t, y), **GKL, gamma=0.3),
    "gkl images": lambda s, t, y: losses.gkl(s, t, y, **GKL, gamma=0.5, weight_temperature=3.0),
    "gkl normalised": lambda s, t, y: losses.gkl(s, t, y, **GKL, gamma=0.5, normalise_images=True),
    "ikl": lambda s, t, y: losses.ikl(s, t, y, **GKL, weight_temperature=3.0),
    "xerm": lambda s, t, y: losses.xerm(s, t, y, COUNTS, gamma=1.5),
    "prior_corrected": lambda s, t, y: losses.prior_corrected_kd(s, t, PRIOR, COUNTS, temperature=T, student_prior=1.0),
    "balanced_posterior": lambda s, t, y: losses.balanced_posterior_kd(s, members(t), COUNTS, temperature=T),
    "balanced_posterior drawn": lambda s, t, y: losses.balanced_posterior_kd(
        s, members(t), COUNTS, temperature=T, drawn=DRAWN
    ),
    "hard": lambda s, t, y: hard(s, t, y, weighted=True),
    "hard unweighted": lambda s, t, y: hard(s, t, y, weighted=False),
    "trust": lambda s, t, y: losses.trust_gated_kd(s, t, y, ACCURACY, temperature=T),
    "two heads": lambda s, t, y: losses.two_head_distillation(s, s, t, y, temperature=T),
    "hard soft": lambda s, t, y: losses.weighted_hard_soft(s, t, y, WEIGHTS, temperature=T),
    "cosine": lambda s, t, y: losses.cosine_kd(losses.cosine_logits(s, t[:C]), t, scale=3.0, temperature=T),
}
SHIFTABLE = sorted(LOGITS.keys() - {"cosine"})
MEAN_OF_IMAGES = (
    "gkl normalised",
    "ikl",
    "xerm",
    "prior_corrected",
    "balanced_posterior",
    "balanced_posterior drawn",
    "hard unweighted",
    "trust",
    "two heads",
    "hard soft",
)


def members(teacher):
    """Two teachers, of which the second is wrong on some images."""
    return torch.stack((teacher, teacher.roll(1, dims=1)))


def means(teacher, target):
    return losses.class_mean_probabilities(teacher, target, temperature=1.0)


def hard(s, t, y, *, weighted):
    arguments = {"student_logits": s, "teacher_logits": t, "target": y, "class_counts": COUNTS}
    return losses.deferred_hard_distillation(**arguments, alpha=0.5, beta=0.9999, weighted=weighted)


def units(*shape, seed=2):
    return losses.unit_vectors(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, B, C, generator=generator, dtype=torch.float64)
    teacher[:3] += 4 * torch.eye(C, dtype=torch.float64)[TARGET[:3]]  # right on some images, not on all
    return student.requires_grad_(), teacher


@pytest.mark.parametrize("name", LOGITS)
def test_derivatives_and_no_gradient_to_the_teacher(logits, name):
    student, teacher = logits
    assert gradcheck(lambda z: LOGITS[name](z, teacher, TARGET), student)
    if name == "cosine":  # there the second argument gives the student's class weights
        return
    teacher = teacher.requires_grad_()
    LOGITS[name](student, teacher, TARGET).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", SHIFTABLE)
def test_a_constant_on_all_logits_of_an_image_changes_nothing(logits, name):
    student, teacher = logits
    shift = torch.linspace(-5, 5, B, dtype=torch.float64).unsqueeze(1)
    moved = LOGITS[name](student + shift, teacher - 2 * shift, TARGET)
    torch.testing.assert_close(moved, LOGITS[name](student, teacher, TARGET), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SHIFTABLE)
def test_halves_of_a_batch(logits, name):
    """The mean of two halves is the whole where each image stands for itself, and only there."""
    rows = means(logits[1], TARGET)  # which stay those of the whole

    def loss(student, teacher, target, weights):
        if name == "gkl":
            return losses.gkl(student, teacher, target, rows, **GKL, gamma=0.3)
        if name == "hard soft":
            return losses.weighted_hard_soft(student, teacher, target, weights, temperature=T)
        return LOGITS[name](student, teacher, target)

    whole = (*logits, TARGET, WEIGHTS)
    halves = zip(*(tensor.split(B // 2) for tensor in whole), strict=True)
    difference = abs(sum(loss(*half) for half in halves) / 2 - loss(*whole)).item()
    assert (difference < 1e-12) == (name in MEAN_OF_IMAGES)


@pytest.mark.parametrize("name", SHIFTABLE)
@pytest.mark.parametrize("size", [1e4, 1e-4])
def test_extreme_logits_are_finite(name, size):
    student = size * torch.sign(torch.randn(B, C, generator=torch.Generator().manual_seed(3)))
    teacher = size * torch.eye(C)[TARGET]
    student.requires_grad_()
    value = LOGITS[name](student, teacher, TARGET)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_every_loss_equals_the_loop(logits):
    student, teacher = logits
    s, t, y, n = student.tolist(), teacher.tolist(), TARGET.tolist(), COUNTS.tolist()
    of_class = [[u**0.3 for u in means(teacher, TARGET)[label].tolist()] for label in y]
    of_image = [[u**0.5 for u in slow.softmax(row, 3.0)] for row in t]
    plain = [[u**0.5 for u in slow.softmax(row)] for row in t]
    effective = losses.effective_number_weights(COUNTS, beta=0.9999).tolist()
    two_heads = slow.weighted_hard_soft(s, t, y, [(1, 1)] * B, T)
    loops = {
        "gkl": slow.gkl(s, t, of_class, **GKL),
        "gkl images": slow.gkl(s, t, of_image, **GKL),
        "gkl normalised": slow.gkl(s, t, plain, **GKL, normalise_images=True),
        "ikl": slow.gkl(s, t, [slow.softmax(row, 3.0) for row in t], **GKL, improved=True),
        "xerm": slow.xerm(s, t, y, n, 1.5),
        "prior_corrected": slow.prior_corrected_kd(s, t, PRIOR.tolist(), n, T, 1.0),
        "balanced_posterior": slow.balanced_posterior_kd(s, members(teacher).tolist(), n, T),
        "balanced_posterior drawn": slow.balanced_posterior_kd(s, members(teacher).tolist(), n, T, DRAWN.tolist()),
        "hard": slow.deferred_hard_distillation(s, t, y, effective, 0.5),
        "hard unweighted": slow.deferred_hard_distillation(s, t, y, [1] * C, 0.5),
        "trust": slow.trust_gated_kd(s, t, y, [min(a, 0.999) for a in ACCURACY.tolist()], T),
        "two heads": two_heads,
        "hard soft": slow.weighted_hard_soft(s, t, y, WEIGHTS.tolist(), T),
    }
    assert sorted(loops) == SHIFTABLE
    for name, expected in loops.items():
        assert LOGITS[name](student, teacher, TARGET).item() == pytest.approx(expected, rel=1e-11), name


def test_class_means_are_means_and_uniform_without_images(logits):
    _, teacher = logits
    target = torch.tensor([0, 0, 1, 1, 1, 3])
    rows = losses.class_mean_probabilities(teacher, target, temperature=T)
    p = (teacher / T).softmax(1)
    torch.testing.assert_close(rows[0], p[:2].mean(0))
    torch.testing.assert_close(rows[1], p[2:5].mean(0))
    assert rows[2].tolist() == pytest.approx([1 / C] * C)
    torch.testing.assert_close(rows.sum(1), torch.ones(C, dtype=torch.float64))


def test_gkl_identities(logits):
    student, teacher = logits
    uniform = torch.full((C, C), 1 / C, dtype=torch.float64)
    variance = (teacher - student).var(dim=1, unbiased=False).mean() / 2
    for class_means, gamma in ((uniform, 0.3), (means(teacher, TARGET), 0.0)):
        settings = {"alpha": 0.0, "beta": 1.0, "gamma": gamma, "temperature": T}
        torch.testing.assert_close(losses.gkl(student, teacher, TARGET, class_means, **settings), variance)
    torch.testing.assert_close(
        losses.gkl(student, teacher, TARGET, **GKL, gamma=1.0), losses.ikl(student, teacher, TARGET, **GKL)
    )
    p = (teacher / T).softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    soft = losses.gkl(student, teacher, TARGET, alpha=1.0, beta=0.0, gamma=0.3, temperature=T)
    torch.testing.assert_close(soft - entropy, losses.kd(student, teacher, temperature=T) / T**2)


def test_gkl_with_gamma_zero_counts_underflowed_probabilities():
    teacher = torch.tensor([[500.0, 0.0, -500.0]])
    student = torch.tensor([[1.0, 2.0, 0.5]])
    value = losses.gkl(student, teacher, torch.tensor([0]), alpha=0.0, beta=1.0, gamma=0.0, temperature=1.0)
    torch.testing.assert_close(value, (teacher - student).var(unbiased=False) / 2)


def test_xerm_identities(logits):
    _, teacher = logits
    even = torch.full((C,), 10)
    half = losses.xerm_weights(teacher, TARGET, even, gamma=1.5)
    torch.testing.assert_close(half, torch.full_like(half, 0.5), rtol=0, atol=2e-2)  # up to the 1e-5
    torch.testing.assert_close(
        losses.xerm_weights(teacher, TARGET, COUNTS, gamma=1e-9), torch.full_like(half, 0.5), rtol=1e-4, atol=0
    )
    known = 1e4 * torch.eye(C)[TARGET]  # by heart, also after the correction: the label is learnt
    assert losses.xerm_weights(known, TARGET, COUNTS, gamma=1.5).tolist() == [0] * B


def test_forms_without_correction_are_kd_or_cross_entropy(logits):
    student, teacher = logits
    kd = losses.kd(student, teacher, temperature=T)
    ce = losses.cross_entropy(student, TARGET)
    uniform = torch.full((C,), 3.0)
    torch.testing.assert_close(losses.prior_corrected_kd(student, teacher, uniform, temperature=T), kd)
    torch.testing.assert_close(
        losses.prior_corrected_kd(student, teacher, class_counts=COUNTS, temperature=T),
        losses.kd(student, teacher - COUNTS.log(), temperature=T),
    )
    log_prior = (COUNTS / COUNTS.sum()).double().log()
    torch.testing.assert_close(  # of one teacher: the logits that KD trains, corrected afterwards
        losses.balanced_posterior_kd(student - log_prior, teacher[None].expand(2, B, C), COUNTS, temperature=T), kd
    )
    as_it_is = losses.balanced_posterior_kd(student, members(teacher), COUNTS, temperature=T)
    alike = losses.balanced_posterior_kd(student, members(teacher), COUNTS, temperature=T, drawn=COUNTS)
    torch.testing.assert_close(alike, as_it_is)
    torch.testing.assert_close(  # of classes that are drawn alike: the corrected teacher's logits are the target
        losses.balanced_posterior_kd(student, teacher[None], COUNTS, temperature=T, drawn=torch.ones(C)),
        losses.kd(student, teacher - log_prior, temperature=T),
    )
    right = torch.eye(C, dtype=torch.float64)[TARGET]
    torch.testing.assert_close(hard(student, right, TARGET, weighted=False), ce)
    equal = torch.full((C,), 0.4, dtype=torch.float64)
    torch.testing.assert_close(
        losses.trust_gated_kd(student, right, TARGET, equal, temperature=T), losses.kd(student, right, temperature=T)
    )
    ones = torch.ones(B, 2, dtype=torch.float64)
    torch.testing.assert_close(losses.weighted_hard_soft(student, teacher, TARGET, ones, temperature=T), ce + kd)


def test_perfect_accuracy_everywhere_weighs_classes_alike():
    assert losses.accuracy_weights(torch.ones(4)).tolist() == pytest.approx([1] * 4)


def test_cosine_logits_do_not_depend_on_lengths():
    features, weight = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cosines = losses.cosine_logits(features, weight)
    torch.testing.assert_close(losses.cosine_logits(7 * features, 0.1 * weight), cosines)
    assert cosines.abs().max() <= 1 + 1e-12


def test_class_balanced_distillation():
    generator = torch.Generator().manual_seed(4)
    student = torch.randn(B, 7, generator=generator, dtype=torch.float64).requires_grad_()
    logits = torch.randn(B, C, generator=generator, dtype=torch.float64)
    teachers = [torch.randn(B, width, generator=generator, dtype=torch.float64) for width in (3, 4)]
    value = losses.class_balanced_distillation(student, logits, teachers, TARGET, alpha=0.4, beta=100.0)
    lists = (student.tolist(), logits.tolist(), [features.tolist() for features in teachers], TARGET.tolist())
    assert value.item() == pytest.approx(slow.class_balanced_distillation(*lists, 0.4, 100.0), rel=1e-12)
    assert gradcheck(lambda x: losses.cosine_distance(x, teachers), student)
    joint = torch.cat([losses.unit_vectors(features) for features in teachers], dim=1)
    assert losses.cosine_distance(joint, [5 * features for features in teachers]).item() == pytest.approx(0, abs=1e-12)


def test_queue_contrast_equals_the_loop_and_has_its_derivatives():
    query, keys = units(B, 4).requires_grad_(), units(12, 4, seed=3).requires_grad_()
    key_target = torch.arange(12) % C
    keep = torch.ones(B, 12, dtype=torch.float64)
    keep[2, 1] = keep[0, 5] = 0
    arguments = (TARGET, key_target, COUNTS, keep)
    value = losses.queue_contrast(query, keys, *arguments, temperature=0.2)
    lists = [x.tolist() for x in (query, keys, *arguments)]
    assert value.item() == pytest.approx(slow.queue_contrast(*lists, 0.2), rel=1e-12)
    assert gradcheck(lambda q, k: losses.queue_contrast(q, k, *arguments, temperature=0.2), (query, keys))
    log_temperature = torch.tensor(-1.5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: losses.queue_contrast(query, keys, *arguments, x), log_temperature)
    losses.queue_contrast(query, keys, *arguments, log_temperature).backward()
    assert query.grad is None
    assert keys.grad is None


def test_queue_contrast_without_keys_of_a_class():
    query, keys = units(B, 4).float().requires_grad_(), units(12, 4, seed=3).float()
    key_target = torch.arange(12) % (C - 1)  # none of the last class, which one image has
    value = losses.queue_contrast(query, keys, TARGET, key_target, COUNTS, temperature=0.01)
    value.backward()
    assert value.isfinite()
    assert query.grad.isfinite().all()
    others = TARGET != C - 1
    pruned = losses.queue_contrast(query[others], keys, TARGET[others], key_target, COUNTS[:-1], temperature=0.01)
    torch.testing.assert_close(value, pruned)
    assert query.grad[~others].abs().max() == 0


def test_balanced_contrastive_equals_the_loop_and_has_its_derivatives():
    centers, view1, view2 = units(C, 4), units(B, 4, seed=3), units(B, 4, seed=4)
    value = losses.balanced_contrastive(centers, view1, view2, TARGET, temperature=0.1)
    lists = [x.tolist() for x in (centers, view1, view2, TARGET)]
    assert value.item() == pytest.approx(slow.balanced_contrastive(*lists, 0.1), rel=1e-12)
    inputs = [x.requires_grad_() for x in (centers, view1, view2)]
    assert gradcheck(lambda *x: losses.balanced_contrastive(*x, TARGET, temperature=0.1), inputs)


@pytest.fixture
def linear():
    generator = torch.Generator().manual_seed(6)
    images, weight, held_out = (
        torch.randn(rows, 3, generator=generator, dtype=torch.float64) for rows in (B, C, 2 * B)
    )
    return {
        "images": images, "target": TARGET, "teacher_logits": torch.randn(B, C, generator=generator).double(),
        "student_weight": weight, "validation_images": held_out, "validation_target": TARGET.repeat(2), "lr": 0.3,
        "temperature": T,
    }  # fmt: skip


def test_hyper_gradient_in_three_ways(linear):
    weights = WEIGHTS.clone().requires_grad_()
    (second_order,) = torch.autograd.grad(losses.lookahead_loss(weights=weights, **linear), weights)
    exact = losses.lookahead_gradient(weights=weights, **linear)
    torch.testing.assert_close(exact, second_order, rtol=1e-10, atol=1e-14)
    for row, column in ((0, 0), (3, 1)):
        step = torch.zeros(B, 2, dtype=torch.float64)
        step[row, column] = 1e-5
        ahead, behind = (losses.lookahead_loss(weights=WEIGHTS + sign * step, **linear) for sign in (1, -1))
        assert ((ahead - behind) / 2e-5).item() == pytest.approx(exact[row, column].item(), rel=1e-6, abs=1e-10)
    assert gradcheck(lambda w: losses.lookahead_loss(weights=w, **linear), weights)


def test_sam_without_a_radius_is_sgd(linear):
    images, weight = linear["images"], linear["student_weight"].clone().requires_grad_()
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    result = losses.sam(images, TARGET, weight.detach().clone(), rho=0.0, steps=3, **settings)
    optimizer = torch.optim.SGD([weight], **settings)
    for _ in range(3):
        optimizer.zero_grad()
        losses.cross_entropy(images @ weight.T, TARGET).backward()
        optimizer.step()
    torch.testing.assert_close(result, weight.detach())
    moved = losses.sam(images, TARGET, linear["student_weight"], rho=0.5, steps=3, **settings)
    assert (moved - result).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("centre", "box"),
    [((0, 0), [0, 8, 0, 8]), ((31, 0), [23, 32, 0, 8]), ((0, 31), [0, 8, 23, 32]), ((16, 10), [8, 24, 2, 18])],
)
def test_cutout_box(centre, box):
    assert losses.cutout_box(centre, size=32, length=16) == box
