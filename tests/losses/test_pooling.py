"""Average pooling against torch's adaptive pooling, in values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from ltkd.losses.pooling import average_pool


@pytest.mark.parametrize(("shape", "size"), [((8, 8), 4), ((7, 7), 4), ((7, 5), (3, 2)), ((2, 3), (3, 4)), ((9, 8), 1)])
def test_it_is_adaptive_pooling(shape, size):
    maps = torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(F.adaptive_avg_pool2d(maps, size).shape, dtype=torch.float64)
    (expected,) = torch.autograd.grad((F.adaptive_avg_pool2d(maps, size) * weights).sum(), maps)
    (found,) = torch.autograd.grad((average_pool(maps, size) * weights).sum(), maps)
    torch.testing.assert_close(average_pool(maps, size), F.adaptive_avg_pool2d(maps, size))
    torch.testing.assert_close(found, expected)


def test_no_gradient_is_added_in_any_order():
    """The operation whose gradient is not deterministic on a GPU has no part where cells overlap."""
    maps = torch.randn(1, 1, 7, 7, requires_grad=True)
    names, left = set(), [average_pool(maps, 4).grad_fn]
    while left:
        node = left.pop()
        names.add(type(node).__name__)
        left += [following for following, _ in node.next_functions if following is not None]
    assert not any("Adaptive" in name for name in names), names
