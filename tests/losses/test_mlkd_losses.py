"""MLKD's three alignments against loops."""

import pytest
import torch

from ltkd.losses import kd, mlkd_batch, mlkd_class, mlkd_instance

from . import slow_logit

TEMPERATURES = [1.0, 3.0]


@pytest.fixture
def logits():
    return 3 * torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("loss", "loop"), [(mlkd_batch, slow_logit.mlkd_batch), (mlkd_class, slow_logit.mlkd_class)])
def test_alignments_equal_the_loops(logits, loss, loop):
    expected = loop(*logits.tolist(), TEMPERATURES)
    assert loss(*logits, temperatures=TEMPERATURES).item() == pytest.approx(expected, rel=1e-12)


def test_the_instance_alignment_is_kd_at_each_temperature(logits):
    expected = sum(kd(*logits, temperature=temperature) for temperature in TEMPERATURES)
    torch.testing.assert_close(mlkd_instance(*logits, temperatures=TEMPERATURES), expected)


def test_each_alignment_is_blind_to_what_the_others_see(logits):
    """Exchanging two classes keeps how alike images are; exchanging two images keeps how alike classes are."""
    student, _ = logits
    classes, images = student[:, [1, 0, 2, 3, 4, 5]], student[[1, 0, 2, 3]]
    assert mlkd_batch(classes, student, temperatures=TEMPERATURES).abs() < 1e-20
    assert mlkd_class(classes, student, temperatures=TEMPERATURES) > 1e-3
    assert mlkd_class(images, student, temperatures=TEMPERATURES).abs() < 1e-20
    assert mlkd_batch(images, student, temperatures=TEMPERATURES) > 1e-3
