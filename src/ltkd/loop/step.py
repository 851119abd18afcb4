"""One training step: forward passes, objective, backward pass, update, and the figures of the batch.

`Step` does it one operation after the other; `GraphedStep` (graph.py) has a GPU replay all of them as one CUDA graph,
with the same numbers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ltkd.data import Batch, EpochPlan, SecondViews
from ltkd.loop.totals import Totals
from ltkd.loop.training import Training
from ltkd.losses import group_mass
from ltkd.models.output import ModelOutput


def make_optimizer(training: Training) -> torch.optim.SGD:
    """SGD on the parameters of network and method, as the recipe has it."""
    t, recipe = training, training.recipe
    groups = [*t.method.task_loss.network_parameter_groups(t.model), *t.method.parameter_groups()]
    return torch.optim.SGD(
        [group for group in groups if group["params"]], lr=recipe.learning_rate, momentum=recipe.momentum,
        nesterov=recipe.nesterov, weight_decay=recipe.weight_decay,
        fused=True if t.device.type == "cuda" else None,  # one kernel, which reads the learning rate on the device
    )  # fmt: skip


@dataclass(frozen=True)
class StepInput:
    """The inputs that differ from step to step."""

    choices: EpochPlan  # images, crops and flips of the batch
    precomputed: list[Tensor]  # logits [B, classes] of the teachers that ran before
    second_view: Tensor | None  # [B, C, H, W], where the method needs it

    def tensors(self) -> list[Tensor]:
        second_view = [] if self.second_view is None else [self.second_view]
        return [*self.choices.tensors(), *self.precomputed, *second_view]

    def clone(self) -> "StepInput":
        return StepInput(
            self.choices.clone(),
            [tensor.clone() for tensor in self.precomputed],
            None if self.second_view is None else self.second_view.clone(),
        )


class Step:
    """The steps of one training, one operation after the other. None of them waits for the device.

    `start_epoch`, then `run` for each step; `totals` has the sums of the figures. A call with a batch is one step
    alone.
    """

    def __init__(self, training: Training, optimizer: torch.optim.SGD, *, compiled: bool = False) -> None:
        self.training = training
        self.optimizer = optimizer
        self.compiled = compiled
        if compiled:
            self._objective = torch.compile(self._objective)
        self.totals = Totals(training.device)
        self._precomputed = [
            logits for logits in (training.teacher_logits, *training.extra_logits) if logits is not None
        ]

    def start_epoch(self, epoch: int, plan: EpochPlan, learning_rate: float) -> None:
        t = self.training
        self._plan = plan
        self._second_views = SecondViews(t.train, plan, (t.seed, epoch)) if t.method.needs.second_view else None
        for logits in self._precomputed:
            logits.start_epoch(plan)
        self._set_learning_rate(learning_rate)

    def run(self, number: int) -> int:
        """Step `number`, from 0, of the epoch; returns how many images it saw."""
        t = self.training
        part = t.train.step_slice(number, t.recipe.batch_size)
        self._update(self._input(number, part))
        return part.stop - part.start

    def _input(self, number: int, part: slice) -> StepInput:
        second_views, batch_size = self._second_views, self.training.recipe.batch_size
        choices = self.training.train.fetch(self._plan, number, batch_size)
        return StepInput(
            choices,
            [logits.rows(part, choices) for logits in self._precomputed],
            None if second_views is None else second_views.batch(number, batch_size),
        )

    def close(self) -> None:
        """Gives back what the steps hold beside the training's own tensors."""
        if self.compiled:
            torch.compiler.reset()

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "totals": self.totals.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # as this device wants it, not the one that wrote the checkpoint
            group["fused"] = self.optimizer.defaults["fused"]
        self.totals.load_state_dict(state["totals"])

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """One update. Returns batch means, on the device: loss/<term>, accuracy, group mass of student and teacher."""
        terms, student, teacher = self._objective(batch)
        self.optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        self.optimizer.step()
        return self._figures(batch, terms, student, teacher)

    def _update(self, given: StepInput) -> None:
        """The whole step from its input."""
        batch, precomputed = self.training.train.batch_of(given.choices), given.precomputed
        if self.training.teacher_logits is not None:
            batch.teacher_logits, *precomputed = precomputed
        batch.extra_logits, batch.second_view = tuple(precomputed), given.second_view
        self.totals.add(self(batch), len(batch.labels))

    def _objective(self, batch: Batch) -> tuple[dict[str, Tensor], ModelOutput, ModelOutput | None]:
        """(weighted terms by name, the student's output, the teacher's output)."""
        t, needs = self.training, self.training.method.needs
        if needs.input_gradients:
            batch.images.requires_grad_()
        with t.autocast():
            teacher = self._teacher(batch)
            student = t.model(batch.images, features=needs.stages)
            return t.method(student, teacher, batch), student, teacher

    def _teacher(self, batch: Batch) -> ModelOutput | None:
        """The teacher's output on the batch; those of further teachers join the batch."""
        t, needs = self.training, self.training.method.needs
        if len(batch.extra_logits) < len(t.extra_teachers):  # not computed ahead
            with torch.no_grad():
                batch.extra_logits = tuple(model(batch.images).logits for model in t.extra_teachers)
        if batch.teacher_logits is not None:
            return ModelOutput(batch.teacher_logits)
        if t.teacher is None:
            return None
        with torch.set_grad_enabled(needs.input_gradients):
            return t.teacher(batch.images, features=needs.stages)

    def _set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            value, device = rate * group.get("learning_rate_factor", 1.0), self.training.device
            if device.type != "cuda":
                group["lr"] = value
            elif isinstance(group["lr"], Tensor) and group["lr"].device == device:
                group["lr"].fill_(value)  # at its place, where a captured step reads it
            else:
                group["lr"] = torch.tensor(value, device=device)

    @torch.no_grad()
    def _figures(
        self, batch: Batch, terms: dict[str, Tensor], student: ModelOutput, teacher: ModelOutput | None
    ) -> dict[str, Tensor]:
        t = self.training
        figures = {f"loss/{name}": term.detach() for name, term in terms.items()}
        figures["accuracy"] = batch.accuracy(student.logits.argmax(1))
        for role, output in (("student", student), ("teacher", teacher)):
            if output is not None:
                mass = group_mass(output.logits.detach(), t.groups, len(t.split.group_names))
                figures[f"group_mass/{role}"] = 100 * mass.mean(0)
        figures |= {name: totals / len(batch.labels) for name, totals in t.method.figures.items()}
        return figures
