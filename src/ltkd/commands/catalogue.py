"""Tables of all methods, task losses and networks of our own; costs and sizes are counted and not typed."""

import dataclasses
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ltkd.config.compose import compose_values
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.config.schema import Config
from ltkd.data import DeviceData
from ltkd.loop.step import Step, StepInput
from ltkd.methods import FIDELITY, list_methods, method_class
from ltkd.models import build_model, count_multiply_adds, count_parameters, list_models
from ltkd.runs.build import TrainedTeacher, new_method, new_model
from ltkd.runs.train import make_training
from ltkd.setup import Setup, synthetic_setup
from ltkd.task_losses import list_task_losses, task_loss_class

NUM_CLASSES = 100
BATCH_SIZE = 4  # the convolutions' share of a step's arithmetic does not depend on it
NEEDS = {
    "stages": "feature maps",
    "embedding": "pooled vector",
    "input_gradients": "input gradients",
    "second_view": "second view",
    "networks": "images of its own",
    "held_out": "validation images",
}


def methods_table(teacher: str, student: str) -> str:
    rows = [
        [
            *(row[key] for key in ("name", "fidelity", "needs", "teacher")),
            f"{row['parameters']:,}",
            f"{row['cost']:.2f}",
            row["paper"],
        ]
        for row in method_rows(teacher, student)
    ]
    meanings = "\n".join(f"- {kind}: {meaning}" for kind, meaning in FIDELITY.items())
    note = (
        f"Extra parameters and cost are those of {teacher} -> {student}, 32x32 images, {NUM_CLASSES} classes. "
        "Cost: multiply-adds of convolutions and matrix\nproducts in one training step with a live teacher, KD = 1. "
        "A teacher that is asked for its logits on the batch alone can be cached."
    )
    headers = ["method", "fidelity", "needs", "teacher", "extra parameters", "cost", "paper"]
    return f"{_table(rows, headers)}\n\nFidelity to the paper:\n\n{meanings}\n\n{note}"


def task_losses_table() -> str:
    """The losses on the labels, for student.task_loss and teacher.task_loss."""
    rows = []
    for name in list_task_losses():
        settings = task_loss_class(name).settings
        rows.append([name, inspect.getdoc(task_loss_class(name)).splitlines()[0], ", ".join(settings) or "-"])
    return _table(rows, ["task loss", "description", "settings"])


def models_table() -> str:
    rows = [[row["name"], f"{row['parameters']:,}", f"{row['multiply_adds'] / 1e6:,.1f} M"] for row in model_rows()]
    return _table(rows, ["network", f"parameters ({NUM_CLASSES} classes)", "multiply-adds (32x32)"])


def _table(rows: list[list[str]], headers: list[str]) -> str:
    alignment = ["right" if rows[0][i][:1].isdigit() else "left" for i in range(len(headers))]
    return tabulate(rows, headers=headers, tablefmt="github", colalign=alignment, disable_numparse=True)


def model_rows() -> list[dict[str, Any]]:
    """Our own networks with their parameters and multiply-adds at 100 classes and 32x32."""
    rows = []
    for name in list_models():
        with torch.device("meta"):  # shapes alone: nothing is computed
            model = build_model(name, NUM_CLASSES)
        size = {"parameters": count_parameters(model), "multiply_adds": count_multiply_adds(model, (3, 32, 32))}
        rows.append({"name": name, **size})
    return rows


def method_rows(teacher: str, student: str) -> list[dict[str, Any]]:
    """All methods: name, paper, needs, teacher (cached, live, none), parameters that training adds, and cost."""
    setup = synthetic_setup(_config("kd", teacher, student), 4 * NUM_CLASSES)
    dataset, test = setup.config.dataset, setup.test
    few = test.source[:BATCH_SIZE], test.labels[:BATCH_SIZE]  # a batch that looks ahead is as large as the training's
    setup = dataclasses.replace(setup, validation=DeviceData(*few, mean=dataset.mean, std=dataset.std))
    teachers: dict[tuple[str, str], nn.Module] = {}  # each is made once
    rows = []
    for name in list_methods():
        method_setup = dataclasses.replace(setup, config=_config(name, teacher, student))
        rows.append({"name": name, **_figures(method_setup, teachers)})
    unit = next(row["cost"] for row in rows if row["name"] == "kd")
    return [row | {"cost": row["cost"] / unit} for row in rows]


def _config(method: str, teacher: str, student: str) -> Config:
    overrides = ("device=cpu", "dataset=cifar100_lt", f"recipe.batch_size={BATCH_SIZE}")
    with _no_advice():
        return load_config(compose_values(*overrides, f"teacher={teacher}", f"student={student}", f"method={method}"))


@contextmanager
def _no_advice() -> Iterator[None]:
    """Silences a method's warnings, which are for those who train with it."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _figures(setup: Setup, teachers: dict[tuple[str, str], nn.Module]) -> dict[str, Any]:
    name = setup.config.method_name
    with _no_advice():
        step, extra_parameters = _first_step(setup, teachers)
    choices = setup.train.draw_epoch(torch.Generator()).take(slice(0, BATCH_SIZE))
    needs = step.training.method.needs
    second_view = setup.train.batch_of(choices).images if needs.second_view else None
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _WholeStep()
    with counter:
        step.update(StepInput(choices, second_view=second_view))
    return _registered(name) | {"parameters": extra_parameters, "cost": counter.get_total_flops()}


def _registered(name: str) -> dict[str, str]:
    """Returns paper, fidelity, needs and use of the teacher as a method's class declares them."""
    method = method_class(name)
    needs = method.needs
    words = [word for key, word in NEEDS.items() if getattr(needs, key)]
    words = ["logits", *words] if words == [NEEDS["held_out"]] else words
    return {
        "paper": method.paper,
        "fidelity": method.fidelity,
        "needs": ", ".join(words) or ("logits" if needs.teacher else "nothing"),
        "teacher": "cached" if needs.teacher_logits_only else "live" if needs.teacher else "none",
    }


class _WholeStep:
    """Stands in for the counter's module tracker, whose hooks do not let a method differentiate in between (kdiga)."""

    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass


def _first_step(setup: Setup, teachers: dict[tuple[str, str], nn.Module]) -> tuple[Step, int]:
    """A training's step before anything is trained, and the number of trained parameters that are not the student's."""
    config = setup.config
    student = new_model(setup, config.student, config.seed)
    student_ids = {id(parameter) for parameter in student.parameters()}
    teacher, further = None, []
    if config.needs_teacher:
        teacher_configs = [config.teacher, *config.extra_teachers]
        for teacher_config in teacher_configs:
            if (teacher_config.name, str(teacher_config.task_loss)) not in teachers:
                network = new_model(setup, teacher_config, teacher_config.seed).eval().requires_grad_(False)
                teachers[teacher_config.name, str(teacher_config.task_loss)] = network
        teacher, *further = (
            TrainedTeacher(teachers[teacher_config.name, str(teacher_config.task_loss)], None)
            for teacher_config in teacher_configs
        )
    method = new_method(setup, student, teacher, len(further)).train()
    model = method.adapt_student(student).train()
    trained = [parameter for module in (model, method) for parameter in module.parameters() if parameter.requires_grad]
    step = Step(make_training(setup, student_run(config), model, method, teacher, further), torch.optim.SGD(trained))
    return step, sum(parameter.numel() for parameter in trained if id(parameter) not in student_ids)
