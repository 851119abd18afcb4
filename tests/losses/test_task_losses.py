"""The losses on labels: against the definition, identities, derivatives."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from ltkd.losses import balanced_softmax, cross_entropy, effective_number_weights, logit_adjusted

from . import slow_reference

COUNTS = torch.tensor([500, 60, 5])
TARGET = torch.tensor([2, 0, 1, 2])


@pytest.fixture
def logits():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def test_logit_adjusted_equals_the_loop(logits):
    priors = [count / 565 for count in COUNTS.tolist()]
    rows = [[z + 1.5 * math.log(p) for z, p in zip(row, priors, strict=True)] for row in logits.tolist()]
    expected = slow_reference.mean(
        -math.log(slow_reference.softmax(row)[y]) for row, y in zip(rows, TARGET.tolist(), strict=True)
    )
    assert logit_adjusted(logits, TARGET, COUNTS, tau=1.5).item() == pytest.approx(expected, rel=1e-12)


def test_tau_one_is_balanced_softmax_and_tau_zero_cross_entropy(logits):
    adjusted = logit_adjusted(logits, TARGET, COUNTS, tau=1.0)
    torch.testing.assert_close(adjusted, balanced_softmax(logits, TARGET, COUNTS))
    torch.testing.assert_close(logit_adjusted(logits, TARGET, COUNTS, tau=0.0), cross_entropy(logits, TARGET))


def test_derivatives(logits):
    assert gradcheck(lambda z: balanced_softmax(z, TARGET, COUNTS), logits)
    assert gradcheck(lambda z: logit_adjusted(z, TARGET, COUNTS, tau=0.5), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(logits, dtype):
    low = (3e3 * logits.detach()).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        values = cross_entropy(low, TARGET), balanced_softmax(low, TARGET, COUNTS)
    expected = cross_entropy(low.float(), TARGET), balanced_softmax(low.float(), TARGET, COUNTS)
    torch.testing.assert_close(values, expected, rtol=0, atol=0)


def test_effective_number_weights_lie_between_no_weights_and_inverse_counts():
    """Exactly 1 for beta 0, 1 / n in the limit of beta 1; beta may be a tensor, so that it can change by epoch."""
    inverse = 1 / COUNTS.double()
    torch.testing.assert_close(effective_number_weights(COUNTS, beta=0.0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(
        effective_number_weights(COUNTS, beta=1 - 1e-9), 3 * inverse / inverse.sum(), rtol=1e-5, atol=0
    )
    tensor = torch.tensor(0.99, dtype=torch.float64)
    torch.testing.assert_close(
        effective_number_weights(COUNTS, beta=tensor), effective_number_weights(COUNTS, beta=0.99)
    )
    by_hand = [(1 - 0.99) / (1 - 0.99**n) for n in COUNTS.tolist()]
    expected = torch.tensor([3 * weight / sum(by_hand) for weight in by_hand], dtype=torch.float64)
    torch.testing.assert_close(effective_number_weights(COUNTS, beta=0.99), expected)
