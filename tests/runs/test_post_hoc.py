"""Post-hoc corrections: from the finished network's own weights, tau never chosen on the test part."""

import json
import logging

import pytest
import torch

from ltkd.config.identity import student_run, teacher_run
from ltkd.loop.evaluate import predict_logits
from ltkd.models import load_weights
from ltkd.results.collect import collect
from ltkd.results.summary import summary_rows
from ltkd.runs import post_hoc
from ltkd.runs.build import new_model
from ltkd.runs.run import run_experiment
from ltkd.setup import prepare


def trained(config):
    """(setup, network) of a finished student, from its files."""
    setup, run = prepare(config), student_run(config)
    model = new_model(setup, run.network, run.seed)
    load_weights(model, run.directory / "weights.safetensors")
    return setup, model.eval()


def accuracy(logits, labels):
    return 100 * (logits.argmax(1) == labels).float().mean().item()


def corrected(setup, model, data, kind, tau):
    """The correction done to the network and not to its logits."""
    counts = torch.tensor(setup.data.split.class_counts, dtype=torch.float32)
    (batch,) = data.evaluation_batches(10**6)
    with torch.no_grad():
        output = model(batch.images)
    if kind == "logit_adjusted":
        return output.logits - tau * (counts / counts.sum()).log()
    weight = model.classifier.weight.detach()
    return output.embedding @ (weight / weight.norm(dim=1, keepdim=True) ** tau).T


@pytest.mark.parametrize("held_out", [0, 5])
def test_figures_are_those_of_the_corrected_network(make_config, held_out):
    config = make_config("method=ce", "recipe.epochs=6", f"dataset.validation_per_class={held_out}")
    result = run_experiment(config)
    setup, model = trained(config)
    for kind in ("logit_adjusted", "tau_normalized"):
        figures = result["post_hoc"][kind]
        test = corrected(setup, model, setup.test, kind, figures["tau"])
        assert figures["test"]["all"] == pytest.approx(accuracy(test, setup.test.labels), abs=0.21)
        assert ("validation" in figures) == bool(held_out)
        if not held_out:
            assert (figures["tau"], figures["chosen_by"]) == (1.0, "default")
            continue
        assert figures["chosen_by"] == "validation"
        labels = setup.validation.labels
        on_validation = {
            tau: accuracy(corrected(setup, model, setup.validation, kind, tau), labels)
            for tau in (step / 10 for step in range(21))
        }
        assert figures["validation"]["all"] == pytest.approx(max(on_validation.values()), abs=1e-4)
        assert on_validation[figures["tau"]] == max(on_validation.values())
    adjusted = result["post_hoc"]["logit_adjusted"]
    plain = result["accuracy"]["last"]
    assert adjusted["test"]["per_group"]["tail"] > plain["per_group"]["tail"]  # what it is for


def test_of_several_equally_good_tau_the_one_nearest_to_the_default_is_taken():
    logits = torch.tensor([[0.45, 0.0], [0.45, 0.0], [2.0, 0.0]])
    shift = torch.tensor([1.0, 0.0])
    correction = lambda z, tau: z - tau * shift  # noqa: E731
    # right above .45 and, at the third, below 2
    assert post_hoc.choose_tau(correction, logits, torch.tensor([1, 1, 0])) == 1.0
    assert post_hoc.choose_tau(correction, logits, torch.tensor([0, 0, 0])) == 0.4
    assert post_hoc.choose_tau(correction, 10 * logits, torch.tensor([1, 1, 0])) == 1.0  # none changes a decision


def test_settings_give_tau_and_leave_out_and_make_no_other_run(make_config):
    chosen = make_config("method=ce", "evaluation.logit_adjusted=0.3", "evaluation.tau_normalized=null")
    assert student_run(chosen).identity == student_run(make_config("method=ce")).identity
    result = run_experiment(chosen)
    assert result["post_hoc"]["tau_normalized"] is None
    figures = result["post_hoc"]["logit_adjusted"]
    assert (figures["tau"], figures["chosen_by"]) == (0.3, "setting")
    setup, model = trained(chosen)
    adjusted = corrected(setup, model, setup.test, "logit_adjusted", 0.3)
    assert figures["test"]["all"] == pytest.approx(accuracy(adjusted, setup.test.labels), abs=0.21)


def test_a_finished_run_says_that_it_has_another_tau(make_config, caplog):
    run_experiment(make_config("method=ce", "evaluation.tau_normalized=null"))
    for override, warned in (
        ("evaluation.logit_adjusted=auto", None),
        ("evaluation.logit_adjusted=1", None),
        ("evaluation.logit_adjusted=0.5", "evaluation.logit_adjusted=0.5: it was evaluated with tau 1"),
        ("evaluation.tau_normalized=0.5", "evaluation.tau_normalized=0.5: it was evaluated without this figure"),
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            run_experiment(make_config("method=ce", override))
        assert (warned or "finished before") in caplog.text
        assert ("it was evaluated" in caplog.text) == bool(warned)


def test_tau_zero_adjusts_nothing(make_config):
    result = run_experiment(make_config("method=ce", "evaluation.logit_adjusted=0"))
    last = {key: value for key, value in result["accuracy"]["last"].items() if key != "epoch"}
    assert result["post_hoc"]["logit_adjusted"]["test"] == last


def test_a_cosine_classifier_has_no_norms_to_temper(make_config, caplog):
    with caplog.at_level(logging.INFO):
        result = run_experiment(make_config("method=ce", "student.task_loss=ldam"))
    assert result["post_hoc"]["tau_normalized"] is None
    assert result["post_hoc"]["logit_adjusted"]["test"]["all"] > 0
    assert "tau-normalisation left out: it needs a linear classifier" in caplog.text


def test_a_class_without_training_images_has_no_prior(make_config, monkeypatch):
    config = make_config("method=ce")
    run_experiment(config)
    setup, model = trained(config)
    setup.data.split.class_counts[3] = 0
    assert post_hoc.post_hoc_corrections(setup, model)["logit_adjusted"] is None
    assert post_hoc.post_hoc_corrections(setup, model)["tau_normalized"] is not None


def test_tables_show_them_for_student_and_teacher(make_config):
    config = make_config("method=kd")
    result = run_experiment(config)
    teacher = json.loads((teacher_run(config).directory / "result.json").read_text())
    cells = collect([student_run(config).directory]).cells
    for kind in ("logit_adjusted", "tau_normalized"):
        rows = {row["method"]: row for row in summary_rows(cells, kind)}
        assert rows["kd"]["tail"] == result["post_hoc"][kind]["test"]["per_group"]["tail"]
        assert rows["teacher"]["all"] == teacher["post_hoc"][kind]["test"]["all"]


def test_a_result_without_such_figures_has_no_row_value(make_config):
    config = make_config("method=ce")
    run_experiment(config)
    path = student_run(config).directory / "result.json"
    result = json.loads(path.read_text())
    del result["post_hoc"]
    path.write_text(json.dumps(result))
    (row,) = summary_rows(collect([path.parent]).cells, "logit_adjusted")
    assert (row["n"], row["all"]) == (0, None)


def test_logits_are_those_of_the_evaluation(make_config):
    config = make_config("method=ce")
    result = run_experiment(config)
    setup, model = trained(config)
    from contextlib import nullcontext

    logits = predict_logits(model, setup.test, nullcontext)
    assert accuracy(logits, setup.test.labels) == pytest.approx(result["accuracy"]["last"]["all"], abs=1e-4)
