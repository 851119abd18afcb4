"""Evaluation figures against slow ones written from their definitions."""

import math

import numpy as np
import pytest
import torch

from ltkd.data import DeviceData, LongTailSplit
from ltkd.errors import UserError
from ltkd.loop.evaluate import NUM_BINS, calibration_error, predict_logits, summarize
from ltkd.models import build_model

EMPTY = np.zeros(0, dtype=np.int64)


def split_of(groups, names):
    zeros = np.zeros(len(groups), dtype=np.int64)
    return LongTailSplit(EMPTY, zeros, np.array(groups), names, EMPTY, zeros, zeros)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(90, 6, generator=generator)
    labels = torch.arange(90) % 6
    logits[torch.arange(90), labels] += 1.0
    return logits, labels, split_of([2, 0, 0, 1, 2, 1], ["head", "medium", "tail", "none"])


def test_accuracy_confusion_and_mass_by_loops(case):
    logits, labels, split = case
    result = summarize(logits, labels, split)
    predicted = [max(range(6), key=lambda c: row[c]) for row in logits.tolist()]
    right = [p == y for p, y in zip(predicted, labels.tolist(), strict=True)]
    assert result.all == pytest.approx(100 * sum(right) / 90)
    for c in range(6):
        mine = [r for r, y in zip(right, labels.tolist(), strict=True) if y == c]
        assert result.per_class[c] == pytest.approx(100 * sum(mine) / len(mine))
    for i, name in enumerate(split.group_names[:3]):
        members = [n for n in range(90) if split.groups[labels[n]] == i]
        assert result.per_group[name] == pytest.approx(100 * sum(right[n] for n in members) / len(members))
        for j in range(3):
            share = sum(split.groups[predicted[n]] == j for n in members) / len(members)
            assert result.group_confusion[i][j] == pytest.approx(100 * share)
        classes = [c for c in range(6) if split.groups[c] == i]
        mass = sum(math.exp(row[c]) / sum(map(math.exp, row)) for row in logits.tolist() for c in classes) / 90
        assert result.group_mass[name] == pytest.approx(100 * mass, rel=1e-5)


def test_an_empty_group_is_none_and_not_zero_or_nan(case):
    result = summarize(*case)
    assert result.per_group["none"] is None
    assert result.group_mass["none"] is None
    assert result.group_confusion[3] is None
    assert not any(name.endswith("/none") for name in result.metrics("test"))
    assert all(math.isfinite(value) for value in result.metrics("test").values())


def test_a_class_or_group_without_images_is_none(case):
    logits, labels, split = case
    kept = (labels != 4) & (labels != 0)  # all classes of the tail
    result = summarize(logits[kept], labels[kept], split)
    assert [value is None for value in result.per_class] == [True, False, False, False, True, False]
    assert result.per_group["tail"] is None
    assert result.group_confusion[2] is None


def test_calibration_error_by_loops(case):
    logits, labels, split = case
    confidence, predicted = logits.softmax(1).max(1)
    correct = predicted == labels
    expected = 0.0
    for b in range(NUM_BINS):
        inside = [n for n in range(90) if b / NUM_BINS < confidence[n] <= (b + 1) / NUM_BINS]
        if inside:
            accuracy = sum(correct[n].item() for n in inside) / len(inside)
            expected += len(inside) / 90 * abs(accuracy - sum(confidence[n].item() for n in inside) / len(inside))
    assert calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-6)
    assert summarize(logits, labels, split).expected_calibration_error == pytest.approx(100 * expected, abs=1e-4)


def test_calibration_error_of_known_cases():
    always = torch.full((8,), 0.75)
    assert calibration_error(always, torch.tensor([True] * 6 + [False] * 2)) == pytest.approx(0)
    assert calibration_error(torch.ones(4), torch.zeros(4, dtype=torch.bool)) == pytest.approx(1)


def test_logits_that_are_not_finite_are_one_message():
    model = build_model("resnet8", 3, in_channels=1)
    data = DeviceData(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), [0, 1, 2, 0], mean=[0.5], std=[0.5])
    assert predict_logits(model, data, torch.enable_grad).shape == (4, 3)
    model.classifier.bias.data[1] = torch.inf
    with pytest.raises(UserError, match="infinite or nan logits in evaluation"):
        predict_logits(model, data, torch.enable_grad)


def test_calibration_has_15_bins():
    """0.67 and 0.72 are one bin, 10/15 .. 11/15: an accuracy of one half at a confidence of 0.695."""
    error = calibration_error(torch.tensor([0.67, 0.72], dtype=torch.float64), torch.tensor([True, False]))
    assert error == pytest.approx(0.195)


def test_the_mean_of_the_classes_counts_none_by_its_images():
    """Three of four images of class 0 are right, none of the one of class 1, and class 2 has none."""
    predicted = torch.tensor([0, 0, 0, 1, 0])
    split = split_of([0, 0, 1], ["head", "tail"])
    result = summarize(torch.eye(3)[predicted], torch.tensor([0, 0, 0, 0, 1]), split)
    assert (result.all, result.mean_per_class) == (60.0, 37.5)
    assert result.accuracies == {"all": 60.0, "mean per class": 37.5}
    assert result.metrics("test")["test/mean_per_class"] == 37.5
    balanced = summarize(torch.eye(3)[predicted[2:4]], torch.tensor([0, 1]), split)
    assert balanced.accuracies == {"all": 100.0}
