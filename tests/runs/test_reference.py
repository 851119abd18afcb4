"""The training loop against a plain one written by hand: recipe, losses, seeds and evaluation are what they say."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ltkd.config.identity import student_run, teacher_run
from ltkd.data import load_data
from ltkd.methods import base
from ltkd.models import build_model, load_weights
from ltkd.runs.run import run_experiment

from .killing import killed_after

SETTINGS = [
    "method=dkd", "method.warmup_fraction=0.67", "method.alpha=1.5", "method.beta=2.5", "method.temperature=3",
    "student.task_loss=balanced_softmax", "teacher.task_loss=logit_adjusted", "seed=5", "recipe=mdistiller",
    "recipe.epochs=3", "recipe.warmup_epochs=1", "recipe.batch_size=100", "recipe.weight_decay=0.01",
    "dataset.validation_per_class=2", "run.evaluate_every=1",
]  # fmt: skip


def float64_network(*arguments, **options):
    """The network in float64, which takes the data's float32 images."""
    model = build_model(*arguments, **options).double()
    model.register_forward_pre_hook(lambda _, images: tuple(image.double() for image in images))
    return model


def plain_run(config, role):
    """The whole training of teacher or student, slowly: returns its weights and the metrics of its epochs."""
    data = load_data(config.dataset, config.data_root)
    mean, std = config.dataset.mean[0], config.dataset.std[0]
    counts = torch.tensor(np.bincount(data.train_labels)).double()
    labels = torch.tensor(data.train_labels)
    seed = config.teacher.seed if role == "teacher" else config.seed
    torch.manual_seed(seed)
    model = float64_network("resnet8", num_classes=10, in_channels=1)
    teacher = None
    if role == "student":
        teacher = float64_network("resnet8", num_classes=10, in_channels=1)
        load_weights(teacher, teacher_run(config).directory / "weights.safetensors")
        teacher.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, weight_decay=0.01)
    generator, history = torch.Generator().manual_seed(seed), []
    # 3 epochs: linear warm-up over one; milestones at 0.625, 0.75 and 0.875 of 3 are after epochs 2, 2 and 3
    for rate, warm in ((0.05, 0.5), (0.05, 1.0), (0.0005, 1.0)):
        optimizer.param_groups[0]["lr"] = rate
        order = torch.randperm(len(labels), generator=generator)
        top, left = torch.randint(0, 3, (2, len(labels)), generator=generator)
        torch.randint(0, 1, (len(labels),), generator=generator)  # no flips, but they are drawn
        model.train()
        totals = {}
        for start in range(0, len(labels), 100):
            rows = range(start, min(start + 100, len(labels)))
            index = order[start : start + 100]
            crops = []
            for i in rows:
                padded = F.pad(torch.tensor(data.train_images[order[i]]), (1, 1, 1, 1))
                crops.append(padded[:, top[i] : top[i] + 8, left[i] : left[i] + 8])
            images = (torch.stack(crops).float() / 255 - mean) / std
            y, logits = labels[index], model(images).logits
            if role == "teacher":
                terms = {"task": F.cross_entropy(logits + (counts / counts.sum()).log(), y)}
            else:
                with torch.no_grad():
                    p = (teacher(images).logits / 3).softmax(1)
                q = (logits / 3).softmax(1)
                py, qy = p.gather(1, y[:, None])[:, 0], q.gather(1, y[:, None])[:, 0]
                target = py * (py / qy).log() + (1 - py) * ((1 - py) / (1 - qy)).log()
                others = torch.ones_like(p).scatter(1, y[:, None], 0).bool()
                po, qo = p[others].view(-1, 9), q[others].view(-1, 9)
                po, qo = po / po.sum(1, keepdim=True), qo / qo.sum(1, keepdim=True)
                terms = {
                    "task": F.cross_entropy(logits + counts.log(), y),
                    "dkd_target": warm * 1.5 * 9 * target.mean(),
                    "dkd_nontarget": warm * 2.5 * 9 * (po * (po / qo).log()).sum(1).mean(),
                }
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
            figures = {f"train/loss/{name}": term for name, term in terms.items()}
            figures["train/group_mass/student/tail"] = (
                100 * logits.softmax(1)[:, 7:].sum(1).mean()
            )  # of 3 / 4 / 3 classes
            if role == "student":
                figures["train/group_mass/teacher/tail"] = 100 * teacher(images).logits.softmax(1)[:, 7:].sum(1).mean()
            for name, figure in figures.items():
                totals[name] = totals.get(name, 0.0) + figure.item() * len(y)
        model.eval()
        metrics = {name: total / len(labels) for name, total in totals.items()}
        for part in ("test", "validation"):
            held_out = torch.tensor(getattr(data, f"{part}_images")).float()
            with torch.no_grad():
                predicted = model((held_out / 255 - mean) / std).logits.argmax(1).numpy()
            metrics[f"{part}/accuracy"] = 100 * (predicted == getattr(data, f"{part}_labels")).mean()
        history.append(metrics)
    return model, history


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_fit_is_the_plain_loop(make_config, monkeypatch, role):
    """In float64: even this short training multiplies a difference in rounding by up to 100,000.

    The teacher runs in every step, because logits computed ahead are float32.
    """
    monkeypatch.setattr("ltkd.runs.build.build_model", float64_network)
    monkeypatch.setattr(base.Needs, "teacher_logits_only", False)
    config = make_config(*SETTINGS)
    run_experiment(config)
    directory = (teacher_run(config) if role == "teacher" else student_run(config)).directory
    model, history = plain_run(config, role)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for line, expected in zip(lines, history, strict=True):
        for name, value in expected.items():
            assert line[name] == pytest.approx(value, rel=3e-6), name  # sums of an epoch are float32
    trained = build_model("resnet8", num_classes=10, in_channels=1).double()
    load_weights(trained, directory / "weights.safetensors")
    for (name, mine), plain in zip(trained.state_dict().items(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def test_bfloat16_is_on_when_it_is_asked_for(make_config):
    first = {}
    for precision in ("float32", "bfloat16"):
        config = make_config("method=ce", "recipe.epochs=1", f"precision.autocast={precision}")
        run_experiment(config)
        first[precision] = json.loads((student_run(config).directory / "metrics.jsonl").read_text())["train/loss"]
    assert first["bfloat16"] != first["float32"]
    assert first["bfloat16"] == pytest.approx(first["float32"], rel=0.05)


class Dropped(nn.Module):
    """A network with randomness of its own, as dropout has."""

    def __init__(self, network):
        super().__init__()
        self.network, self.classifier = network, network.classifier

    def forward(self, images, *, features=False):
        output = self.network(images, features=features)
        output.logits = F.dropout(output.logits, 0.3, self.training)
        return output


def test_resume_restores_the_random_state_of_dropout(make_config, monkeypatch):
    from ltkd.runs import build

    monkeypatch.setattr(build, "build_model", lambda *a, **k: Dropped(build_model(*a, **k)))
    whole, halved = make_config("method=ce", "study=whole"), make_config("method=ce", "study=halved")
    expected = run_experiment(whole)
    with killed_after(1):
        run_experiment(halved)
    torch.manual_seed(12345)
    assert run_experiment(halved)["weights_sha256"] == expected["weights_sha256"]


def test_parameters_of_a_method_start_from_the_seed_and_join_optimizer_and_checkpoint(make_config, monkeypatch):
    """Whether the teacher was trained just now or found, and after a resume."""

    class WithParameters(base.Method):
        paper = "none"

        def __init__(self, context, task_loss):
            super().__init__(context, task_loss, task_weight=1.0)
            self.scale = nn.Linear(10, 10)

        def distill(self, student, teacher, batch):
            return {"distance": F.mse_loss(self.scale(student.logits), teacher.logits)}

    monkeypatch.setitem(base._METHODS, "with_parameters", WithParameters)

    def config(*overrides):
        values = make_config("method=kd", *overrides)
        object.__setattr__(values, "method", {"name": "with_parameters"})
        return values

    def trained(*overrides):
        from ltkd.loop import state as state_module

        save, states = state_module.save_checkpoint, []
        monkeypatch.setattr(state_module, "save_checkpoint", lambda path, what: (states.append(what), save(path, what)))
        run_experiment(config(*overrides))
        monkeypatch.setattr(state_module, "save_checkpoint", save)
        return [state["method"]["scale.weight"].clone() for state in states if "scale.weight" in state["method"]]

    just_trained, found, other = trained("study=a"), trained("study=b"), trained("study=c", "seed=1")
    assert torch.equal(just_trained[-1], found[-1])
    assert not torch.equal(just_trained[-1], other[-1])
