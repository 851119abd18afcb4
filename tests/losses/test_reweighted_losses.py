"""Losses that weigh classes, images or margins: against loops, identities, extreme logits, derivatives."""

import pytest
import torch
from torch.autograd import gradcheck

from ltkd import losses

from . import slow_reference

COUNTS = torch.tensor([500, 60, 5])
TARGET = torch.tensor([2, 0, 1, 2])
BETA = 0.999


@pytest.fixture
def logits():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def test_every_loss_equals_the_loop(logits):
    rows, target, counts = logits.tolist(), TARGET.tolist(), COUNTS.tolist()
    weights = slow_reference.effective_number_weights(counts, BETA)
    ce = slow_reference.cross_entropies(rows, target)
    weighted = [weights[y] * loss for y, loss in zip(target, ce, strict=True)]
    pairs = {
        losses.class_balanced_cross_entropy(logits, TARGET, COUNTS, beta=BETA): sum(weighted) / 4,
        losses.weighted_cross_entropy(logits, TARGET, COUNTS, beta=BETA): sum(weighted)
        / sum(weights[y] for y in target),
        losses.focal(logits, TARGET, gamma=1.5): slow_reference.focal(rows, target, [1] * 3, 1.5),
        losses.focal(logits, TARGET, COUNTS, gamma=0.5, beta=BETA): slow_reference.focal(rows, target, weights, 0.5),
        losses.class_balanced_focal(logits, TARGET, COUNTS, beta=BETA, gamma=2.0): slow_reference.class_balanced_focal(
            rows, target, weights, 2.0
        ),
        losses.ldam(logits, TARGET, COUNTS, max_margin=0.4, scale=7.0): slow_reference.ldam(
            rows, target, counts, 0.4, 7.0, [1] * 3
        ),
        losses.ldam(logits, TARGET, COUNTS, max_margin=0.4, scale=7.0, beta=BETA): slow_reference.ldam(
            rows, target, counts, 0.4, 7.0, weights
        ),
    }
    for value, expected in pairs.items():
        assert value.item() == pytest.approx(expected, rel=1e-12)


def test_beta_zero_weighs_nothing_and_beta_near_one_by_the_inverse_count(logits):
    plain = losses.cross_entropy(logits, TARGET)
    assert losses.effective_number_weights(COUNTS, beta=0.0).tolist() == [1, 1, 1]
    for loss in (losses.class_balanced_cross_entropy, losses.weighted_cross_entropy):
        torch.testing.assert_close(loss(logits, TARGET, COUNTS, beta=0.0), plain)
    ldam = {"max_margin": 0.5, "scale": 30.0}
    torch.testing.assert_close(
        losses.ldam(logits, TARGET, COUNTS, **ldam, beta=0.0), losses.ldam(logits, TARGET, COUNTS, **ldam)
    )
    inverse = 1 / COUNTS.double()
    torch.testing.assert_close(
        losses.effective_number_weights(COUNTS, beta=1 - 1e-9), 3 * inverse / inverse.sum(), rtol=1e-5, atol=0
    )


def test_beta_can_be_a_tensor_that_changes(logits):
    beta = torch.tensor(0.0, dtype=torch.float64)
    torch.testing.assert_close(
        losses.weighted_cross_entropy(logits, TARGET, COUNTS, beta=beta), losses.cross_entropy(logits, TARGET)
    )
    beta.fill_(BETA)
    assert torch.equal(
        losses.weighted_cross_entropy(logits, TARGET, COUNTS, beta=beta),
        losses.weighted_cross_entropy(logits, TARGET, COUNTS, beta=BETA),
    )


def test_gamma_zero_and_margin_zero_are_the_plain_losses(logits):
    torch.testing.assert_close(losses.focal(logits, TARGET, gamma=0.0), losses.cross_entropy(logits, TARGET))
    torch.testing.assert_close(
        losses.focal(logits, TARGET, COUNTS, gamma=0.0, beta=BETA),
        losses.class_balanced_cross_entropy(logits, TARGET, COUNTS, beta=BETA),
    )
    one_hot = torch.eye(3, dtype=torch.float64)[TARGET]
    sigmoids = torch.nn.functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="sum") / 4
    torch.testing.assert_close(losses.class_balanced_focal(logits, TARGET, COUNTS, beta=0.0, gamma=0.0), sigmoids)
    torch.testing.assert_close(
        losses.ldam(logits, TARGET, COUNTS, max_margin=0.0, scale=4.0), losses.cross_entropy(4 * logits, TARGET)
    )


def test_the_rarest_class_has_the_whole_margin(logits):
    rare = torch.tensor([2, 2, 2, 2])
    moved = logits - 0.5 * torch.eye(3, dtype=torch.float64)[rare]
    torch.testing.assert_close(
        losses.ldam(logits, rare, COUNTS, max_margin=0.5, scale=30.0), losses.cross_entropy(30 * moved, rare)
    )


LOSSES = {
    "class_balanced": lambda z: losses.class_balanced_cross_entropy(z, TARGET, COUNTS, beta=BETA),
    "weighted": lambda z: losses.weighted_cross_entropy(z, TARGET, COUNTS, beta=BETA),
    "focal": lambda z: losses.focal(z, TARGET, gamma=0.5),
    "weighted_focal": lambda z: losses.focal(z, TARGET, COUNTS, gamma=2.0, beta=BETA),
    "class_balanced_focal": lambda z: losses.class_balanced_focal(z, TARGET, COUNTS, beta=BETA, gamma=0.5),
    "ldam": lambda z: losses.ldam(z, TARGET, COUNTS, max_margin=0.5, scale=3.0, beta=BETA),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_derivatives(loss, logits):
    assert gradcheck(loss, logits)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("sign", [1, -1])
def test_certain_and_wrong_networks_have_finite_gradients(loss, sign):
    extreme = (sign * 1e4 * (2 * torch.eye(3)[TARGET] - 1)).requires_grad_()
    value = loss(extreme)
    value.backward()
    assert value.isfinite()
    assert extreme.grad.isfinite().all()
    assert (value == 0) == (sign == 1)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_half_precision_is_computed_in_float32(loss, logits):
    low = (30 * logits.detach()).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(low)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(low.float()), rtol=0, atol=0)


def test_tau_normalisation_from_weights_and_from_logits_agree():
    generator = torch.Generator().manual_seed(2)
    weight, bias, x = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 4), (5,), (7, 4))
    )
    logits = x @ weight.T + bias
    for tau in (0.0, 0.7, 2.0):
        expected = x @ losses.tau_normalise(weight, tau=tau).T
        torch.testing.assert_close(losses.tau_normalised_logits(logits, weight, bias, tau=tau), expected)
    torch.testing.assert_close(losses.tau_normalise(weight, tau=1.0).norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert torch.equal(losses.tau_normalise(weight, tau=0.0), weight)
    without_bias = losses.tau_normalised_logits(logits - bias, weight, None, tau=0.0)
    torch.testing.assert_close(without_bias, logits - bias, rtol=0, atol=0)
    assert losses.tau_normalise(torch.zeros(2, 3), tau=1.0).isfinite().all()


def test_post_hoc_adjustment_undoes_the_prior(logits):
    adjusted = losses.posthoc_logit_adjustment(logits, COUNTS, tau=1.3)
    torch.testing.assert_close(adjusted + 1.3 * (COUNTS.double() / 565).log(), logits)
    assert torch.equal(losses.posthoc_logit_adjustment(logits, COUNTS, tau=0.0), logits)
    # training with the prior added and testing without it is the same shift as testing with it taken away
    torch.testing.assert_close(
        losses.cross_entropy(logits, TARGET),
        losses.logit_adjusted(losses.posthoc_logit_adjustment(logits, COUNTS, tau=1.0), TARGET, COUNTS, tau=1.0),
    )
