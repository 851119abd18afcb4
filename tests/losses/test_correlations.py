"""DIST, differentiable ranks and what is built on them: against loops, hard ranks, and the trap of large strengths."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ltkd.losses import (
    correlation_matching,
    dist,
    kd,
    kd_per_image,
    normalized_entropy,
    overlap_weighted_kd,
    pearson,
    ranking_loss,
    soft_rank,
    soft_spearman,
    standardize,
)

from . import slow_logit


def draw(rows, classes, seed=0, size=3.0):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(2, rows, classes, generator=generator, dtype=torch.float64)


def hard_ranks(rows):
    return torch.tensor([slow_logit.hard_rank(row) for row in rows.tolist()], dtype=torch.float64)


def test_dist_equals_the_loop():
    student, teacher = draw(5, 7)
    expected = slow_logit.dist(student.tolist(), teacher.tolist(), 2.0, 0.7, 3.0)
    assert dist(student, teacher, beta=2.0, gamma=0.7, temperature=3.0).item() == pytest.approx(expected, rel=1e-12)
    expected = slow_logit.dist(student.tolist(), teacher.tolist(), 2.0, 0.7, 3.0, epsilon=0.0)
    value = dist(student, teacher, beta=2.0, gamma=0.7, temperature=3.0, scale_free=True)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_a_class_of_tiny_probabilities_counts_only_where_dist_is_scale_free():
    student, teacher = draw(8, 6, size=1.0)
    teacher[:, 0] -= 14  # probabilities of about 1e-7 in the whole batch, that vary as those of any other class
    student = teacher.clone()
    public, free = (dist(student, teacher, beta=0.0, gamma=1.0, temperature=1.0, scale_free=f) for f in (False, True))
    assert public.item() == pytest.approx(1 / 6, rel=1e-3)  # one of six classes correlates with nothing
    assert free.item() == pytest.approx(0, abs=1e-6)


def test_the_part_between_images_is_a_constant_for_one_image():
    student, teacher = draw(1, 6)
    student.requires_grad_()
    value = dist(student, teacher, beta=0.0, gamma=1.5, temperature=2.0)
    value.backward()
    assert value.item() == 4 * 1.5
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 57])
@pytest.mark.parametrize("strength", [1e-3, 0.03, 0.3, 1.0, 10.0])
def test_soft_ranks_equal_pool_adjacent_violators(classes, strength):
    values = draw(9, classes)[0]
    expected = torch.tensor([slow_logit.soft_rank(row, strength) for row in values.tolist()], dtype=torch.float64)
    ranks = soft_rank(values, strength=strength)
    torch.testing.assert_close(ranks, expected, rtol=1e-9, atol=1e-9)
    total = torch.full((9,), classes * (classes + 1) / 2, dtype=torch.float64)
    torch.testing.assert_close(ranks.sum(1), total)  # the permutahedron's plane


def test_soft_ranks_with_ties_and_blocks_of_every_length():
    generator = torch.Generator().manual_seed(4)
    values = torch.randint(0, 6, (200, 12), generator=generator).double() / 3  # many equal values, in any order
    expected = torch.tensor([slow_logit.soft_rank(row, 0.2) for row in values.tolist()], dtype=torch.float64)
    torch.testing.assert_close(soft_rank(values, strength=0.2), expected, rtol=1e-9, atol=1e-9)


def test_a_small_strength_gives_hard_ranks_and_ties_their_mean():
    values = torch.tensor([[3.0, -1.0, 0.5, 3.0, 0.5, 0.5], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
    expected = torch.tensor([[5.5, 1.0, 3.0, 5.5, 3.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    torch.testing.assert_close(soft_rank(values, strength=1e-4), expected)
    torch.testing.assert_close(hard_ranks(values).float(), expected)
    assert torch.equal(soft_rank(torch.full((2, 5), 7.0), strength=0.1), torch.full((2, 5), 3.0))


def test_the_derivative_of_soft_ranks_is_identity_minus_block_means():
    """0 for a value by itself; 1 / strength * (I - 1/2) for two that share."""
    values = torch.tensor([[0.0, 5.0, 5.01, 9.0]], dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda v: soft_rank(v, strength=0.1)[0], values)[:, 0]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[1:3, 1:3] = 10 * torch.tensor([[0.5, -0.5], [-0.5, 0.5]])
    torch.testing.assert_close(jacobian, expected)


def test_derivatives_of_soft_ranks():
    values = draw(3, 8)[0].requires_grad_()
    for strength in (0.05, 0.5, 5.0):
        assert gradcheck(lambda v, strength=strength: soft_rank(v, strength=strength), values)
    weight = draw(3, 8, seed=1)[0].requires_grad_()
    assert gradgradcheck(lambda v, w: (soft_rank(v, strength=0.5) * w).square(), (values, weight))


def test_masked_values_are_as_if_they_were_not_there():
    values = draw(6, 9)[0].requires_grad_()
    mask = torch.rand(6, 9, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[:, 0] = True
    for strength in (0.01, 0.5, 20.0):
        ranks = soft_rank(values, strength=strength, mask=mask)
        for row, chosen, rank in zip(values, mask, ranks, strict=True):
            torch.testing.assert_close(rank[chosen], soft_rank(row[chosen].unsqueeze(0), strength=strength)[0])
        (gradient,) = torch.autograd.grad(ranks[mask].square().sum(), values)
        assert gradient[~mask].abs().max() == 0


@pytest.mark.parametrize(("classes", "error"), [(10, 0.02), (100, 2e-3), (1000, 2e-4)])
def test_spearman_at_the_default_strength_is_the_hard_coefficient(classes, error):
    """2 / C on z-scores: near Spearman's value whatever the number of classes, and most logits have a gradient."""
    student, teacher = draw(32, classes)
    student, teacher = standardize(student + teacher).requires_grad_(), standardize(teacher)
    value = soft_spearman(student, teacher, strength=2 / classes)
    hard = 1 - pearson(hard_ranks(student), hard_ranks(teacher)).mean()
    on_values = 1 - pearson(student, teacher).mean()
    assert value.item() == pytest.approx(hard.item(), abs=error)
    assert abs(on_values - hard) > 2 * error  # that it is not Pearson's shows
    value.backward()
    assert (student.grad != 0).double().mean() > 0.6


def test_the_trap_a_strength_of_one_is_pearson():
    """Every library's default: the soft ranks of probabilities, or of 100 z-scores, are affine in the values."""
    student, teacher = (standardize(z) for z in draw(16, 100))
    torch.testing.assert_close(
        soft_spearman(student, teacher, strength=1.0), 1 - pearson(student, teacher, floor=1e-12).mean()
    )
    p = student.softmax(1)
    torch.testing.assert_close(soft_rank(p, strength=1.0), p - p.mean(1, keepdim=True) + 50.5)


def test_correlation_matching_equals_the_loop():
    student, teacher = draw(5, 8)
    difficulty = torch.linspace(0, 1, 5, dtype=torch.float64)
    expected = slow_logit.correlation_matching(student.tolist(), teacher.tolist(), difficulty.tolist(), 2.0, 3.0)
    value = correlation_matching(student, teacher, difficulty, temperature=2.0, rank_strength=3.0)
    assert value.item() == pytest.approx(expected, rel=1e-6)  # the loop has no 1e-8 in the denominator


def test_correlation_matching_does_not_see_the_scale_of_the_logits():
    student, teacher = draw(5, 8)
    settings = {"temperature": 2.0, "rank_strength": 2.0}
    difficulty = torch.full((5,), 0.4, dtype=torch.float64)
    value = correlation_matching(student, teacher, difficulty, **settings)
    scaled = correlation_matching(7 * student, 0.1 * teacher, difficulty, **settings)
    torch.testing.assert_close(scaled, value, rtol=1e-5, atol=0)


def test_normalized_entropy_runs_from_sure_to_even():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0], [100.0, 100.0, 0.0, 0.0]])
    torch.testing.assert_close(normalized_entropy(logits, temperature=1.0), torch.tensor([1.0, 0.0, 0.5]))
    p = (draw(3, 5)[0] / 2).softmax(1)
    expected = -(p * p.log()).sum(1) / torch.tensor(5.0, dtype=torch.float64).log()
    torch.testing.assert_close(normalized_entropy(draw(3, 5)[0], temperature=2.0), expected)


@pytest.mark.parametrize("k", [2, 3, 7, 12])
@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_ranking_loss_equals_the_loop(k, strength):
    student, teacher = draw(9, 12)
    student[0] = teacher[0]  # a union of k classes
    student[1] = -teacher[1]  # one of 2k, or of all
    expected = slow_logit.ranking_loss(student.tolist(), teacher.tolist(), k, strength)
    assert ranking_loss(student, teacher, k=k, strength=strength).item() == pytest.approx(expected, rel=1e-9)


def test_ranking_loss_takes_all_of_fewer_classes():
    student, teacher = draw(4, 3)
    assert ranking_loss(student, teacher, k=5, strength=1.0) == ranking_loss(student, teacher, k=3, strength=1.0)
    torch.testing.assert_close(
        ranking_loss(student, teacher, k=5, strength=1.0), soft_spearman(student, teacher, strength=1.0)
    )


def test_ranking_loss_moves_the_peaks_alone():
    student, teacher = draw(6, 20)
    student.requires_grad_()
    ranking_loss(student, teacher, k=3, strength=1.0).backward()
    for gradient, s, t in zip(student.grad, student, teacher, strict=True):
        union = set(s.topk(3).indices.tolist()) | set(t.topk(3).indices.tolist())
        assert set(gradient.nonzero().flatten().tolist()) <= union


def test_overlap_weighs_the_kd_of_each_image():
    teacher = torch.tensor([[5.0, 4.0, 3.0, 0.0, 0.0], [5.0, 4.0, 3.0, 0.0, 1.0], [9.0, 8.0, 0.0, 0.0, 1.0]])
    student = torch.tensor([[5.0, 6.0, 0.0, 0.0, 0.0], [0.0, 7.0, 5.0, 0.0, 0.0], [0.0, 0.0, 9.0, 8.0, 0.0]])
    each = kd_per_image(student, teacher, temperature=1.0)
    value = overlap_weighted_kd(student, teacher, k=2, temperature=1.0)
    torch.testing.assert_close(value, (1.0 * each[0] + 0.5 * each[1] + 0.0 * each[2]) / 3)
    whole = overlap_weighted_kd(student, teacher, k=5, temperature=1.0)
    torch.testing.assert_close(whole, kd(student, teacher, temperature=1.0))
