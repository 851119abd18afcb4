"""Given weights that know nothing of the training images, or another order of classes, are refused before training."""

import pytest
import torch

from ltkd.errors import UserError
from ltkd.models import build_model, check_predictions
from ltkd.models.classifier import order_classes

COUNTS = torch.tensor([60, 40, 20, 10, 6])
NAMES = ["ant", "bee", "cat", "dog", "elk"]


@pytest.fixture
def labels():
    return torch.repeat_interleave(torch.arange(5), COUNTS)


def one_hot(predicted):
    return torch.nn.functional.one_hot(predicted, 5).float()


def test_a_teacher_that_knows_the_images_passes(labels):
    check_predictions(one_hot(labels), labels, NAMES, "t")
    half = torch.where(torch.arange(len(labels)) % 2 == 0, labels, (labels + 1) % 5)
    check_predictions(one_hot(half), labels, NAMES, "t")


def test_another_order_of_classes_is_named(labels):
    """Output 0 is class 1, ..., as in a file whose labels are shifted."""
    with pytest.raises(UserError, match=r"t: is right on 0\.0 % .*100\.0 % .*another order.*'ant', is its output 4"):
        check_predictions(one_hot((labels - 1) % 5), labels, NAMES, "t")


def test_two_classes_in_exchange_among_five_are_a_warning(labels, caplog):
    check_predictions(one_hot(torch.tensor([0, 1, 0, 0, 0])[labels]), labels, NAMES, "t")  # biased towards the head
    assert not caplog.records
    exchanged = torch.tensor([1, 0, 2, 3, 4])
    check_predictions(one_hot(exchanged[labels]), labels, NAMES, "t")
    assert "t: is right on 60.0 % of the training images" in caplog.text
    assert "takes classes for one another ('ant' for 'bee', 'bee' for 'ant')" in caplog.text


@pytest.mark.parametrize("guess", range(5))
def test_one_guess_for_all_images_is_chance_whatever_the_imbalance(labels, guess):
    with pytest.raises(UserError, match=r"right on 20\.0 % .*no more than chance \(20\.0 %\)"):
        check_predictions(one_hot(torch.full_like(labels, guess)), labels, NAMES, "t")


def test_outputs_come_into_the_order_of_names():
    model = build_model("resnet8", 5, in_channels=1).eval()
    images = torch.randn(3, 1, 8, 8)
    before = model(images).logits
    order_classes(model, ["elk", "ant", "bee", "cat", "dog"], NAMES)
    torch.testing.assert_close(model(images).logits, before[:, [1, 2, 3, 4, 0]])
    for names in (["elk", "ant"], ["elk", "ant", "bee", "cat", "fox"], ["elk", "ant", "bee", "cat", "elk", "dog"]):
        with pytest.raises(UserError, match=r"teacher\.class_names: should be the data set's 5 names"):
            order_classes(model, names, NAMES)
