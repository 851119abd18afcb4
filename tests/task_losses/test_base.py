"""Task losses by name."""

import pytest
import torch

from ltkd import losses
from ltkd.errors import UserError
from ltkd.task_losses import TaskLoss, build_task_loss, list_task_losses, task_loss_class

COUNTS = torch.tensor([50, 10, 2])
LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 3.0]])
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("ce", losses.cross_entropy(LOGITS, LABELS)),
        ({"name": "ce"}, losses.cross_entropy(LOGITS, LABELS)),
        ("balanced_softmax", losses.balanced_softmax(LOGITS, LABELS, COUNTS)),
        ({"name": "logit_adjusted", "tau": 1.5}, losses.logit_adjusted(LOGITS, LABELS, COUNTS, tau=1.5)),
        ("class_balanced", losses.class_balanced_cross_entropy(LOGITS, LABELS, COUNTS, beta=0.9999)),
        (
            {"name": "class_balanced", "beta": 0.9, "divide_by": "weights"},
            losses.weighted_cross_entropy(LOGITS, LABELS, COUNTS, beta=0.9),
        ),
        ({"name": "focal", "gamma": 2.0}, losses.focal(LOGITS, LABELS, gamma=2.0)),
        ({"name": "focal", "deferred": 0.0}, losses.focal(LOGITS, LABELS, COUNTS, gamma=1.0, beta=0.9999)),
        ("class_balanced_focal", losses.class_balanced_focal(LOGITS, LABELS, COUNTS, beta=0.9999, gamma=1.0)),
        ("ldam", losses.ldam(LOGITS / 30, LABELS, COUNTS, max_margin=0.5, scale=30.0)),
        (
            {"name": "ldam", "max_margin": 0.2, "scale": 5.0, "deferred": 0.0, "beta": 0.99},
            losses.ldam(LOGITS / 5, LABELS, COUNTS, max_margin=0.2, scale=5.0, beta=0.99),
        ),
    ],
)
def test_name_or_mapping_builds_the_loss(choice, expected):
    task_loss = build_task_loss(choice, COUNTS)
    assert isinstance(task_loss, TaskLoss)
    assert task_loss(LOGITS, LABELS) == expected
    assert not task_loss.state_dict()  # the data set determines the counts: a checkpoint need not carry them


def test_unknown_name_lists_the_choices():
    with pytest.raises(UserError, match=r"task_loss: .*'balanced_softmx'.*did you mean 'balanced_softmax'"):
        task_loss_class("balanced_softmx")
    with pytest.raises(UserError, match="name"):
        build_task_loss({"tau": 1.0}, COUNTS)


@pytest.mark.parametrize("name", list_task_losses())
def test_a_class_without_images_is_refused_where_priors_are_used(name):
    choice = {"name": name, "tau": 1.0} if name == "logit_adjusted" else name
    counts = torch.tensor([50, 0, 2])
    if name in ("ce", "focal"):
        build_task_loss(choice, counts)
    else:
        with pytest.raises(UserError, match="none of class 1"):
            build_task_loss(choice, counts)
