"""What there is: all methods and all networks of our own, with figures that are counted and not typed.

python src/train.py --list            both tables
python src/train.py --list vgg13 vgg8 the methods' figures for another pair
"""

from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ltkd.composition import compose_values
from ltkd.config import Config, load_config
from ltkd.data import Batch, class_counts, make_groups
from ltkd.methods import Method, MethodContext, Networks, build_method, build_task_loss, list_methods
from ltkd.models import ModelOutput, build_model, count_multiply_adds, count_parameters, list_models

PAIR = ("resnet32x4", "resnet8x4")  # the field's main pair
BATCH_SIZE = 64  # statistics over the batch cost by its size; of the images only a few are computed
NUM_CLASSES = 100
NEEDS = {
    "stages": "feature maps", "embedding": "pooled vector", "input_gradients": "input gradients",
    "second_view": "second view", "networks": "own images",
}  # fmt: skip


def catalogue(teacher: str = PAIR[0], student: str = PAIR[1]) -> str:
    """Both tables as Markdown."""
    return "\n\n".join((methods_table(teacher, student), models_table()))


def models_table() -> str:
    rows = [[row["name"], f"{row['parameters']:,}", f"{row['multiply_adds'] / 1e6:,.1f} M"] for row in model_rows()]
    headers = ["network", f"parameters ({NUM_CLASSES} classes)", "multiply-adds (32x32)"]
    return _table(rows, headers, right=(1, 2))


def methods_table(teacher: str, student: str) -> str:
    rows = [
        [row["name"], row["paper"], row["needs"], row["teacher"], f"{row['parameters']:,}", f"{row['cost']:.2f}"]
        for row in method_rows(teacher, student)
    ]
    headers = ["method", "paper", "needs", "teacher", "extra parameters", "cost"]
    note = (
        f"Extra parameters and cost for {teacher} -> {student} on 32x32 images, {NUM_CLASSES} classes. Cost: multiply-adds "
        "of a training step, KD with a live teacher = 1. The teacher of a method that needs nothing but its logits on "
        "the batch can be cached."
    )
    return f"{_table(rows, headers, right=(4, 5))}\n\n{note}"


def model_rows() -> list[dict[str, Any]]:
    """Our own networks with their parameters and multiply-adds at 100 classes and 32x32."""
    rows = []
    for name in list_models():
        with torch.device("meta"):  # shapes alone: nothing is computed
            model = build_model(name, NUM_CLASSES)
        row = {"parameters": count_parameters(model), "multiply_adds": count_multiply_adds(model, (3, 32, 32))}
        rows.append({"name": name, **row})
    return rows


def method_rows(teacher: str, student: str) -> list[dict[str, Any]]:
    """All methods: name, paper, needs, teacher (cached, live, none), parameters that training adds, and its cost."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    pair = {role: build_model(name, NUM_CLASSES) for role, name in (("teacher", teacher), ("student", student))}
    rows = []
    for name in list_methods():
        config = load_config(
            compose_values(
                "device=cpu", "dataset=cifar100_lt", f"teacher={teacher}", f"student={student}", f"method={name}"
            )
        )
        rows.append({"name": name, **_figures(config, pair["teacher"], build_model(student, NUM_CLASSES))})
    torch.set_num_threads(threads)
    unit = next(row["cost"] for row in rows if row["name"] == "kd")
    return [row | {"cost": row["cost"] / unit} for row in rows]


def _figures(config: Config, teacher: nn.Module, student: nn.Module) -> dict[str, Any]:
    teacher.eval().requires_grad_(False)
    parameters = count_parameters(student)
    method = _method(config, teacher, student)
    student = method.adapt_student(student)
    trained = [p for module in (student, method) for p in module.parameters() if p.requires_grad]
    needs = method.needs
    words = [word for key, word in NEEDS.items() if getattr(needs, key)] if needs.teacher else ["nothing"]
    with FlopCounterMode(display=False) as counter:
        _step(method, teacher, student)
    return {
        "paper": method.paper,
        "needs": ", ".join(words) or "logits",
        "teacher": "cached" if needs.teacher_logits_only else "live" if needs.teacher else "none",
        "parameters": sum(p.numel() for p in trained) - parameters,
        "cost": counter.get_total_flops(),
    }


def _method(config: Config, teacher: nn.Module, student: nn.Module) -> Method:
    images = torch.randn(2, 3, 32, 32)
    counts = torch.as_tensor(class_counts(config.dataset, 500))
    with torch.no_grad():
        outputs = [network.eval()(images, features=True) for network in (student, teacher)]
    student.train()
    context = MethodContext(
        num_classes=NUM_CLASSES,
        class_counts=counts,
    )
    return build_method(config.method_name, config.method_arguments, context, build_task_loss("ce", counts))
