"""The noise-contrastive loss and its scores."""

import pytest
import torch
from torch.autograd import gradcheck

from ltkd import losses

from . import slow_feature_reference as slow


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_counts_are_draws():
    """What was drawn twice stands for two negatives, what was not drawn for none."""
    scores = uniform(2, 4) / 10
    counts = torch.tensor([[2.0, 0.0, 3.0], [1.0, 4.0, 0.0]], dtype=torch.float64)
    drawn = [
        [row[1 + column] for column, count in enumerate(times) for _ in range(int(count))]
        for row, times in zip(scores.tolist(), counts.tolist(), strict=True)
    ]
    expected = slow.crd_nce(scores[:, 0].tolist(), drawn, 50)
    assert losses.crd_nce(scores, counts, num_data=50).item() == pytest.approx(expected, rel=1e-12)
    ones = torch.ones(2, 3, dtype=torch.float64)
    torch.testing.assert_close(losses.crd_nce(scores, ones, num_data=50), losses.crd_nce(scores, num_data=50))


def test_derivatives():
    anchor = uniform(3, 4).requires_grad_()
    memory, counts = uniform(6, 4, seed=1), torch.randint(3, (3, 6), generator=torch.Generator().manual_seed(0))

    def loss(v):
        scores = losses.crd_scores(v, memory, temperature=0.5)
        return losses.crd_nce(torch.cat((scores[:, :1], scores), dim=1) / 9, counts.double(), num_data=6)

    assert gradcheck(loss, anchor, fast_mode=True)


def test_scores_are_of_the_unit_vector():
    anchor, memory = uniform(3, 4), uniform(6, 4, seed=1)
    scores = losses.crd_scores(anchor, memory, temperature=0.07)
    for b in range(3):
        for n in range(6):
            cosine = (anchor[b] / anchor[b].norm()) @ memory[n]
            assert scores[b, n].item() == pytest.approx((cosine / 0.07).exp().item(), rel=1e-12)
    torch.testing.assert_close(losses.crd_scores(5 * anchor, memory, temperature=0.07), scores)


def test_a_zero_anchor_is_finite():
    anchor = torch.zeros(2, 4, requires_grad=True)
    scores = losses.crd_scores(anchor, uniform(6, 4).float(), temperature=0.07)
    losses.crd_nce(scores, num_data=6).backward()
    assert anchor.grad.isfinite().all()
