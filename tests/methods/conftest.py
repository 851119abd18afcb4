"""A small problem that all methods can be made for."""

import pytest
import torch

from ltkd.data import Batch
from ltkd.methods import MethodContext
from ltkd.models.output import ModelOutput

B, C = 8, 6


@pytest.fixture
def context():
    return MethodContext(
        num_classes=C,
        class_counts=torch.tensor([100, 50, 25, 12, 6, 3]),
        groups=torch.tensor([0, 0, 1, 1, 2, 2]),
        group_names=["head", "medium", "tail"],
        epochs=10,
        num_train=196,
    )


@pytest.fixture
def outputs():
    """(student, teacher, batch) with random logits."""
    generator = torch.Generator().manual_seed(3)
    student, teacher = 3 * torch.randn(2, B, C, generator=generator)
    batch = Batch(torch.zeros(B, 1, 1, 1), torch.randint(C, (B,), generator=generator), torch.arange(B))
    return ModelOutput(student.requires_grad_()), ModelOutput(teacher), batch
