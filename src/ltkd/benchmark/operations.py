"""Counts the operations of one training step: on a GPU each is at least one kernel, whose launch costs microseconds."""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ltkd.benchmark.loops import Pair
from ltkd.config.identity import student_run
from ltkd.config.schema import Config
from ltkd.loop.step import Step, StepInput, make_optimizer
from ltkd.runs.train import make_training

IMAGES = 4  # of the batch: the count does not depend on it


class OperationCounter(TorchDispatchMode):
    """Counts what is dispatched in its `with` block, forward and backward, by name. Views cost nothing and are not."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        aliases = [value.alias_info for value in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        if function.namespace == "aten" and not is_view:
            self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def count_operations(config: Config) -> Counter[str]:
    """Returns the operations of a step of the configuration's student by name, with the teacher's logits from a cache
    where one can hold them, and the optimizer's step as the one operation that it is on a GPU.
    """
    config = replace(config, cache=replace(config.cache, mode="off"))  # of logits that are made up
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(config, Path(folder), made_up=True)
        training = make_training(pair.setup, student_run(config), pair.student, pair.method, pair.teacher)
    optimizer = make_optimizer(training)
    for group in optimizer.param_groups:
        group["fused"] = True
    step = Step(training, optimizer)
    logits = torch.zeros(IMAGES, config.dataset.num_classes, device=training.device)
    plan = training.train.draw_epoch(torch.Generator().manual_seed(0)).take(slice(0, IMAGES))
    step_input = StepInput(plan, None if training.teacher_logits is None else logits)
    training.method.start_epoch(1)
    step.update(step_input)  # what the first step sets up is not counted
    with OperationCounter() as counter:
        step.update(step_input)
    return counter.counts
