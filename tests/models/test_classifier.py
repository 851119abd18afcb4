"""The choice of a classifier: any network, its place in a run's identity, and what it does not go with."""

import logging

import pytest
import torch

from ltkd import losses
from ltkd.config.identity import student_run, teacher_run
from ltkd.errors import UserError
from ltkd.models import build_model
from ltkd.models.classifier import give_classifier
from ltkd.runs.load import load_run
from ltkd.runs.run import run_experiment


@pytest.mark.parametrize("network", ["resnet8", "vgg8", "mobilenetv2", "torchvision/resnet18"])
def test_any_network_may_have_a_cosine_classifier(network):
    model = build_model(network, num_classes=4)
    give_classifier(model, {"name": "cosine", "scale": 20.0})
    model.eval()
    output = model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    cosines = losses.cosine_logits(output.embedding, model.classifier.weight)
    torch.testing.assert_close(output.logits, 20 * cosines, rtol=1e-4, atol=1e-4)
    kd = losses.kd(output.logits, output.logits.flip(0), temperature=4.0)
    cosine_kd = losses.cosine_kd(cosines, cosines.flip(0), scale=20.0, temperature=4.0)
    torch.testing.assert_close(cosine_kd, kd, rtol=1e-3, atol=1e-4)


def test_only_another_classifier_is_another_run(make_config):
    plain, named = make_config(), make_config("student.classifier={name: linear}")
    assert student_run(plain).identity == student_run(named).identity
    assert "classifier" not in student_run(plain).identity
    mine = make_config("student.classifier={name: cosine, scale: 30.0}")
    assert student_run(mine).identity["classifier"] == "cosine"
    assert teacher_run(mine).identity == teacher_run(plain).identity
    assert teacher_run(make_config("teacher.classifier=cosine")).identity["classifier"] == "cosine"


def test_a_run_with_cosine_classifiers_is_built_again_from_its_folder(make_config):
    cosine = "{name: cosine, scale: 16.0}"
    config = make_config("method=kd", f"student.classifier={cosine}", f"teacher.classifier={cosine}")
    run_experiment(config)
    model = load_run(student_run(config).directory).model
    assert 4 < model(torch.randn(20, 1, 8, 8)).logits.abs().max() <= 16


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("student.classifier=spherical", "student.classifier: unknown name 'spherical'"),
        ("student.classifier={name:cosine,scale:0.0}", "student.classifier.scale: should be greater than 0"),
        ("student.classifier=cosine student.task_loss=ldam", "student.classifier: student.task_loss=ldam brings a"),
        ("student.classifier=cosine student.retraining=lws", "student.retraining: lws scales a linear classifier"),
        ("student.classifier=cosine method=simkd", "student.classifier: method simkd deploys the student with"),
    ],
)
def test_what_a_classifier_does_not_go_with_is_said(make_config, settings, said):
    with pytest.raises(UserError, match=said):
        make_config(*settings.split(" "))


def test_a_method_that_is_made_for_other_settings_says_so(make_config, caplog):
    with caplog.at_level(logging.WARNING):
        make_config("method=cbd")
    expected = "teacher.classifier=cosine student.classifier=cosine ++student.recipe.sampling=class_balanced"
    assert f"method=cbd is made for {expected}" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        make_config("method=cbd", *expected.split(" "))
    assert "made for" not in caplog.text
