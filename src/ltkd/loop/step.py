"""Carries out training steps, from the batch to its metrics.

`Step.update` is the whole of it. `Step` carries it out one operation after the other; `GraphedStep` (graph.py) has a
GPU replay all of its operations as one CUDA graph, with the same numbers.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ltkd.data import Batch, DeviceData, EpochPlan, SecondViews
from ltkd.data.steps import EpochSteps
from ltkd.loop.sharpness import sharpness_aware_gradient
from ltkd.loop.teacher_logits import TeacherLogits
from ltkd.loop.totals import Totals
from ltkd.loop.training import Training
from ltkd.loop.whole_batch import gather_step
from ltkd.losses import group_mass
from ltkd.models.output import ModelOutput
from ltkd.optimization.averaging import build_average
from ltkd.optimization.optimizers import build_optimizer, load_state
from ltkd.ranks import Share, consecutive


@dataclass(frozen=True)
class StepInput:
    """The tensors that differ from step to step."""

    choices: EpochPlan  # images, crops and flips of the batch
    teacher_logits: Tensor | None = None  # [B, classes], where they were computed ahead of the step
    extra_logits: tuple[Tensor, ...] = ()  # [B, classes] of each extra teacher, likewise
    second_view: Tensor | None = None  # [B, C, H, W] of all processes' images, where the method needs it
    shares: tuple[Share, ...] = ()  # of the batch's parts, where several processes share it

    def batch(self, data: DeviceData) -> Batch:
        """Cut, mirror and normalise the images, and add what was computed before."""
        return replace(
            data.batch_of(self.choices),
            teacher_logits=self.teacher_logits,
            extra_logits=self.extra_logits,
            second_view=self.second_view,
            shares=self.shares,
        )

    def tensors(self) -> list[Tensor]:
        optional = (self.teacher_logits, *self.extra_logits, self.second_view)
        return [*self.choices.tensors(), *(tensor for tensor in optional if tensor is not None)]

    def clone(self) -> "StepInput":
        return StepInput(
            self.choices.clone(),
            None if self.teacher_logits is None else self.teacher_logits.clone(),
            tuple(map(torch.clone, self.extra_logits)),
            None if self.second_view is None else self.second_view.clone(),
        )


class Step:
    """The steps of one training. None of them waits for the device.

    Call `start_epoch`, then `run` for each step of the epoch; `totals` sums the metrics. `update` alone is one step
    from an input of the caller's.
    """

    def __init__(self, training: Training, optimizer: torch.optim.Optimizer, *, compiled: bool = False) -> None:
        self.training = training
        self.ranks = training.ranks
        self.data = training.train.in_parts(training.recipe.accumulation)
        self.reads_batch = training.method.reads_batch or training.method.task_loss.reads_batch
        self.optimizer = optimizer
        self.compiled = compiled
        if compiled:
            self._forward = torch.compile(self._forward)
        self.average = build_average(training.model, training.recipe.average)
        self.totals = Totals(training.device)
        self._second_views = SecondViews(training.train) if training.method.needs.second_view else None
        self._moment: tuple[int, ...] = (0,)  # seed, epoch and step
        self._moving: list[nn.Parameter] | None = None  # those that get a gradient in any process

    @property
    def _steps(self) -> EpochSteps:
        return self.data.steps(self.training.recipe.batch_size)

    def start_epoch(self, epoch: int, plan: EpochPlan, learning_rate: float) -> None:
        t = self.training
        self._plan, self._moment = plan, (t.seed, epoch)
        if self._second_views is not None:
            self._second_views.start_epoch(plan, (t.seed, epoch))
        own_positions = None if self.ranks.alone else self._steps.own_in_epoch()
        for logits in t.precomputed_logits:
            logits.start_epoch(plan, own_positions)
        self._set_learning_rate(learning_rate)

    def run(self, number: int) -> int:
        """Carry out step `number`, from 0, of the epoch. Returns the number of images that it saw."""
        step_input = self.input(number)
        self._moment = (*self._moment[:2], number)
        self.update(step_input)
        images = self._steps.batch(number)
        return images.stop - images.start

    def input(self, number: int) -> StepInput:
        """Collect what step `number` works on. Steps must be asked for in ascending order."""
        t, views = self.training, self._second_views
        steps = self._steps
        parts = steps.own(number)
        choices = self.data.fetch(self._plan, number, t.recipe.batch_size)
        return StepInput(
            choices,
            None if t.teacher_logits is None else _rows(t.teacher_logits, parts, choices),
            tuple(_rows(logits, parts, choices) for logits in t.extra_logits),
            None if views is None else views.batch(number, t.recipe.batch_size),
            () if self.ranks.alone else steps.shares(number),
        )

    def update(self, step_input: StepInput) -> dict[str, Tensor]:
        """Carry out one whole step.

        Returns the metrics of its batch, on the device and already in `totals`, each a mean over the images:
        loss/<term>, accuracy [%], group_mass/<student or teacher> [groups, in %] and what the method records.
        """
        t = self.training
        batch = step_input.batch(self.data)

        self.optimizer.zero_grad(set_to_none=True)
        if t.recipe.sam:
            metrics = sharpness_aware_gradient(
                lambda: self._differentiate(batch), self.optimizer, (t.model, t.method), radius=t.recipe.sam
            )
        else:
            metrics = self._differentiate(batch)
        self.optimizer.step()
        self.average.update()
        self.totals.add(metrics, batch.num_images)
        return metrics

    def _differentiate(self, batch: Batch) -> dict[str, Tensor]:
        """Add the gradient of the objective, part of the batch by part. Returns the metrics of the whole batch."""
        self.ranks.at(*self._moment)
        parts = batch.parts(self.data.parts)
        if len(parts) == 1 and self.ranks.alone:
            return self._differentiate_part(batch, 1.0)
        metrics: dict[str, Tensor] = {}
        for part in parts:
            share = part.num_images / batch.num_images
            if part.shares:  # of what all processes add
                share *= 1 / self.ranks.size if self.reads_batch else part.shares[0].weight
            for name, value in self._differentiate_part(part, share).items():
                metrics[name] = metrics.get(name, 0) + share * value
        return metrics if self.ranks.alone else self._sum_over_ranks(metrics)

    @torch.no_grad()
    def _sum_over_ranks(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sum gradients, in place, and metrics over the processes, in one message."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if self._moving is None:  # once: a parameter without a gradient is one for which the optimizer does nothing
            moving = self.ranks.gather_objects([parameter.grad is not None for parameter in parameters])
            self._moving = [
                parameter for parameter, flags in zip(parameters, zip(*moving, strict=True), strict=True) if any(flags)
            ]
        for parameter in self._moving:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self._moving]
        if len(gradients) < sum(parameter.grad is not None for parameter in parameters):
            raise RuntimeError(
                "a parameter got its first gradient after the first step; processes would disagree on it"
            )
        sums = self.ranks.sum([*gradients, *metrics.values()])
        for gradient, total in zip(gradients, sums[: len(gradients)], strict=True):
            gradient.copy_(total)
        return dict(zip(metrics, sums[len(gradients) :], strict=True))

    def _differentiate_part(self, batch: Batch, share: float) -> dict[str, Tensor]:
        t = self.training
        terms, student, teacher, batch = self._forward(batch)
        loss = sum(terms.values())
        (loss if share == 1 else share * loss).backward()
        with torch.no_grad():
            metrics = {f"loss/{name}": term.detach() for name, term in terms.items()}
            metrics["accuracy"] = batch.accuracy(student.logits.argmax(1))
            for role, output in (("student", student), ("teacher", teacher)):
                if output is not None:
                    mass = group_mass(output.logits.detach(), t.groups, len(t.split.group_names))
                    metrics[f"group_mass/{role}"] = 100 * mass.mean(0)
            return metrics | {name: sums / len(batch.labels) for name, sums in t.method.figures.items()}

    def _forward(self, batch: Batch) -> tuple[dict[str, Tensor], ModelOutput, ModelOutput | None, Batch]:
        """Run the networks and losses.

        Returns weighted terms by name, and what they were computed of: the student's output, the teacher's, the batch.
        """
        t, needs = self.training, self.training.method.needs
        if needs.input_gradients:
            batch.images.requires_grad_()
        with t.autocast():
            teacher = self._teacher(batch)
            with self.ranks.own_random(t.device):
                student = t.model(batch.images, features=needs.stages)
            if batch.shares and self.reads_batch:
                student, teacher, batch = gather_step(self.ranks, t.method, student, teacher, batch)
            elif batch.shares and batch.second_view is not None:
                batch = replace(batch, second_view=batch.second_view[batch.shares[0].rows])
            return t.method(student, teacher, batch), student, teacher, batch

    def _teacher(self, batch: Batch) -> ModelOutput | None:
        """Return the teacher's output on the batch; the logits of extra teachers join the batch."""
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

    def state_dict(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"optimizer": self.optimizer, "totals": self.totals, "average": self.average}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state(self.optimizer, state["optimizer"])
        self.totals.load_state_dict(state["totals"])
        self.average.load_state_dict(state.get("average", {}))  # which checkpoints of before do not have

    def close(self) -> None:
        """Give back what the steps hold beside the training's own tensors."""
        if self.compiled:
            torch.compiler.reset()


def _rows(logits: TeacherLogits, parts: list[slice], choices: EpochPlan) -> Tensor:
    """Float32 logits [B, C] of the images at some parts of the epoch, which `choices` are of."""
    if len(parts) == 1:
        return logits.rows(parts[0], choices)
    places = consecutive(part.stop - part.start for part in parts)
    return torch.cat([logits.rows(part, choices.take(place)) for part, place in zip(parts, places, strict=True)])


def make_optimizer(training: Training) -> torch.optim.Optimizer:
    """Make the recipe's optimizer on the parameters of network and method."""
    t = training
    groups = [*t.method.task_loss.network_parameter_groups(t.model), *t.method.parameter_groups()]
    return build_optimizer([group for group in groups if group["params"]], t.recipe, t.device)
