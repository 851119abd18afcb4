"""One training step: forward passes, objective, backward pass, update, and the figures of the batch.

`Step` does it one operation after the other; `GraphedStep` has a GPU replay all of them as one CUDA graph, with the
same numbers. The choice is made once for a training: `make_step`.
"""

import copy
import functools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ltkd.data import Batch, EpochPlan, SecondViews
from ltkd.engine.totals import Totals
from ltkd.engine.training import Training
from ltkd.errors import UserError
from ltkd.losses import group_mass
from ltkd.models.output import ModelOutput

logger = logging.getLogger(__name__)

WARM_UP = 3  # steps before a capture: what libraries set up at their first call must not become part of the graph


def make_optimizer(training: Training) -> torch.optim.SGD:
    """SGD on the parameters of network and method, as the recipe has it."""
    t, recipe = training, training.recipe
    groups = [*t.method.task_loss.network_parameter_groups(t.model), *t.method.parameter_groups()]
    return torch.optim.SGD(
        [group for group in groups if group["params"]], lr=recipe.learning_rate, momentum=recipe.momentum,
        nesterov=recipe.nesterov, weight_decay=recipe.weight_decay,
        fused=True if t.device.type == "cuda" else None,  # one kernel, which reads the learning rate on the device
    )  # fmt: skip


def make_step(training: Training) -> "Step":
    """The kind of step that `training.step` (the configuration's run.step) means on its device.

    UserError where a graph is asked for and cannot be.
    """
    t, mode = training, training.step
    obstacle = None
    if t.device.type != "cuda":
        obstacle = "a CUDA graph needs an NVIDIA GPU"
    elif not t.method.capturable:
        obstacle = f"method {t.method.name} looks at values in its step"
    if mode == "graph" and obstacle:
        raise UserError(f"run.step: graph is not possible, {obstacle}; choose auto, eager or compile")
    if mode == "auto" and obstacle and t.device.type == "cuda":
        logger.info("%s: no CUDA graph, %s: it runs operation by operation", t.label, obstacle)
    kind = Step if mode == "eager" or obstacle else GraphedStep
    return kind(t, make_optimizer(t), compiled=mode == "compile")


@dataclass(frozen=True)
class StepInput:
    """What differs from step to step."""

    choices: EpochPlan  # images, crops and flips of the batch
    ahead: list[Tensor]  # logits [B, classes] of the teachers that ran before
    second_view: Tensor | None  # [B, C, H, W], where the method needs it

    def tensors(self) -> list[Tensor]:
        second_view = [] if self.second_view is None else [self.second_view]
        return [*vars(self.choices).values(), *self.ahead, *second_view]

    def clone(self) -> "StepInput":
        return StepInput(
            EpochPlan(*(tensor.clone() for tensor in vars(self.choices).values())),
            [tensor.clone() for tensor in self.ahead],
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
        self._ahead = [logits for logits in (training.teacher_logits, *training.further_logits) if logits is not None]

    def start_epoch(self, epoch: int, plan: EpochPlan, learning_rate: float) -> None:
        t = self.training
        self._plan = plan
        self._second_views = SecondViews(t.train, plan, (t.seed, epoch)) if t.method.needs.second_view else None
        for logits in self._ahead:
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
        return StepInput(
            self._plan.take(part),
            [logits.rows(part) for logits in self._ahead],
            None if second_views is None else second_views.batch(number, batch_size),
        )

    def close(self) -> None:
        """What the steps hold beside the training's own tensors is given back."""
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
        batch, ahead = self.training.train.batch_of(given.choices), given.ahead
        if self.training.teacher_logits is not None:
            batch.teacher_logits, *ahead = ahead
        batch.further_logits, batch.second_view = tuple(ahead), given.second_view
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
        if len(batch.further_logits) < len(t.further_teachers):  # not computed ahead
            with torch.no_grad():
                batch.further_logits = tuple(model(batch.images).logits for model in t.further_teachers)
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
        figures["accuracy"] = 100 * (student.logits.argmax(1) == batch.labels).float().mean()
        for role, output in (("student", student), ("teacher", teacher)):
            if output is not None:
                mass = group_mass(output.logits.detach(), t.groups, len(t.split.group_names))
                figures[f"group_mass/{role}"] = 100 * mass.mean(0)
        figures |= {name: totals / len(batch.labels) for name, totals in t.method.figures.items()}
        return figures


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all trainings of the process: cuBLAS keeps a workspace of megabytes for every stream that it meets."""
    return torch.cuda.Stream(device)


class GraphedStep(Step):
    """The whole step as one CUDA graph: at these sizes a GPU waits most of the time for the next launch.

    A step of a new batch size (there are two: the last batch of an epoch may be short) is captured when it first comes.
    What the warm-up of a capture changes is put back, so that capturing changes no number.
    """

    def __init__(self, training: Training, optimizer: torch.optim.SGD, *, compiled: bool = False) -> None:
        super().__init__(training, optimizer, compiled=compiled)
        self._graphs: dict[int, tuple[StepInput, torch.cuda.CUDAGraph]] = {}
        self._pool = torch.cuda.graph_pool_handle()  # no step needs what another left in it: one pool serves all sizes
        self._stream = _capture_stream(training.device)

    def run(self, number: int) -> int:
        part = self.training.train.step_slice(number, self.training.recipe.batch_size)
        given, size = self._input(number, part), part.stop - part.start
        if size not in self._graphs:
            self._graphs[size] = self._capture(given)
        buffers, graph = self._graphs[size]
        for buffer, value in zip(buffers.tensors(), given.tensors(), strict=True):
            buffer.copy_(value, non_blocking=True)
        graph.replay()
        return size

    def close(self) -> None:
        torch.cuda.synchronize(self.training.device)
        for _, graph in self._graphs.values():
            graph.reset()
        self._graphs.clear()
        self.optimizer.zero_grad(set_to_none=True)  # gradients live in the graphs' memory
        super().close()

    def _capture(self, given: StepInput) -> tuple[StepInput, torch.cuda.CUDAGraph]:
        """(the step's input buffers, its graph). Nothing is changed but the buffers."""
        device, buffers = self.training.device, given.clone()
        self._make_momentum()
        changing = self._changing_tensors()
        before, totals = [tensor.detach().clone() for tensor in changing], copy.deepcopy(self.totals.state_dict())
        random = torch.get_rng_state(), torch.cuda.get_rng_state(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self._update(buffers)
        torch.cuda.current_stream(device).wait_stream(self._stream)

        with torch.no_grad():
            for tensor, value in zip(changing, before, strict=True):
                tensor.copy_(value)
        self.totals.load_state_dict(totals)
        torch.set_rng_state(random[0])
        torch.cuda.set_rng_state(random[1], device)
        self.optimizer.zero_grad(set_to_none=True)  # so that the captured backward pass allocates them in the pool

        try:
            return buffers, self._record(buffers)
        except RuntimeError as error:
            cause = error.__context__ or error  # the end of a broken capture raises an error of its own
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None  # with or without a graph: it says so itself
            what = f"{self.training.label}: the step of method {self.training.method.name} cannot be captured"
            reason = str(cause).partition("\n")[0]  # the lines below it advise on debugging CUDA
            raise UserError(f"{what} ({reason}); run.step=eager trains without a graph") from error

    def _record(self, buffers: StepInput) -> torch.cuda.CUDAGraph:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.training.device)
        try:
            # thread_local: what other threads (trackers) ask of the driver meanwhile is none of the graph's business
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                self._update(buffers)
        finally:
            torch.cuda.set_stream(stream)  # a capture that fails leaves its own behind
        return graph

    def _make_momentum(self) -> None:
        """Momentum buffers of 0, with which the first step is as without any: they must exist before a capture."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                state = self.optimizer.state[parameter]
                if group["momentum"] and state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)

    def _changing_tensors(self) -> list[Tensor]:
        """All tensors, but the totals, that outlive a step and that it may change."""
        modules = (self.training.model, self.training.method)
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        tensors += [
            value for state in self.optimizer.state.values() for value in state.values() if torch.is_tensor(value)
        ]
        return list({id(tensor): tensor for tensor in tensors}.values())
