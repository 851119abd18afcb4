"""The decorator of every loss."""

import torch

from ltkd.losses.precision import full_precision


@full_precision
def product(a, *, b):
    return a @ b


def test_autocast_is_off_and_half_is_promoted():
    a, b = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ b).dtype == torch.bfloat16  # what the decorator is for
        torch.testing.assert_close(product(a, b=b), torch.einsum("ij,jk->ik", a.double(), b.double()).float())
        assert product(a.half(), b=b.bfloat16()).dtype == torch.float32
        assert product(a.double(), b=b.double()).dtype == torch.float64
