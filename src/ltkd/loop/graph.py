"""Runs the training step as one CUDA graph, and chooses between it and the plain step."""

import copy
import functools
import logging
import threading

import torch
from torch import Tensor

from ltkd.errors import UserError
from ltkd.loop.step import Step, StepInput, make_optimizer
from ltkd.loop.training import Training
from ltkd.optimization.optimizers import make_state

logger = logging.getLogger(__name__)

WARM_UP = 3  # steps before a capture: what libraries set up at their first call must not become part of the graph


class CaptureFailed(UserError):
    """A step cannot be captured. It may leave allocator and random generator broken: only a new process can go on."""


def make_step(training: Training) -> Step:
    """Make the kind of step that `training.step` (the configuration's run.step) means on its device.

    UserError where a graph is asked for and cannot be.
    """
    t, mode = training, training.step
    obstacle = None
    if not t.ranks.alone:
        obstacle = "several processes exchange gradients in each step"
    elif t.device.type != "cuda":
        obstacle = "a CUDA graph needs an NVIDIA GPU"
    elif not t.method.capturable:
        obstacle = f"method {t.method.name} looks at values in its step"
    elif t.recipe.sam:
        obstacle = "the second pass of recipe.sam needs the random numbers of the first again"
    if mode == "graph" and obstacle:
        raise UserError(f"run.step: graph is not possible, {obstacle}; choose auto, eager or compile")
    if mode == "auto" and obstacle and t.device.type == "cuda":
        logger.info("%s: no CUDA graph, %s: it runs operation by operation", t.label, obstacle)
    kind = Step if mode == "eager" or obstacle else GraphedStep
    return kind(t, make_optimizer(t), compiled=mode == "compile")


_of_thread = threading.local()


def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all trainings of a thread, since cuBLAS keeps a workspace of megabytes for every stream.

    Trainings of other threads have others: their graphs run at the same time and must not write into one workspace.
    """
    streams = vars(_of_thread).setdefault("streams", {})
    if device not in streams:  # torch has 32 streams, which it hands out in turn: none is taken without need
        streams[device] = torch.cuda.Stream(device)
    return streams[device]


@functools.cache
def _latest_draw(device: torch.device) -> torch.cuda.Event:
    """The end of the latest replay on the device that draws random numbers, of whichever training of this process.

    Their seeds lie in one place, which each replay writes before it reads them: one has to follow the other.
    """
    return torch.cuda.Event()


class GraphedStep(Step):
    """The whole step as one CUDA graph, since at these sizes a GPU waits most of the time for the next launch.

    A step of a new batch size (there are two: the last batch of an epoch may be short) is captured when it first comes.
    What the warm-up of a capture changes is put back, so that capturing changes no number.
    """

    def __init__(self, training: Training, optimizer: torch.optim.Optimizer, *, compiled: bool = False) -> None:
        super().__init__(training, optimizer, compiled=compiled)
        self._graphs: dict[int, tuple[StepInput, torch.cuda.CUDAGraph]] = {}
        self._pool = torch.cuda.graph_pool_handle()  # no step needs what another left in it: one pool serves all sizes
        self._stream = _capture_stream(training.device)
        self._draws = False  # random numbers on the device, whose state all graphs of the process may have in common

    def run(self, number: int) -> int:
        step_input = self.input(number)
        size = len(step_input.choices.permutation)
        if size not in self._graphs:
            self._graphs[size] = self._capture(step_input)
        buffers, graph = self._graphs[size]
        for buffer, value in zip(buffers.tensors(), step_input.tensors(), strict=True):
            buffer.copy_(value, non_blocking=True)
        device = self.training.device
        if self._draws:
            torch.cuda.current_stream(device).wait_event(_latest_draw(device))
        graph.replay()
        if self._draws:
            _latest_draw(device).record(torch.cuda.current_stream(device))
        return size

    def close(self) -> None:
        torch.cuda.synchronize(self.training.device)
        for _, graph in self._graphs.values():
            graph.reset()
        self._graphs.clear()
        self.optimizer.zero_grad(set_to_none=True)  # gradients live in the graphs' memory
        super().close()

    def _capture(self, step_input: StepInput) -> tuple[StepInput, torch.cuda.CUDAGraph]:
        """Capture a step and return its input buffers and graph. Nothing else is changed."""
        device, buffers = self.training.device, step_input.clone()
        make_state(self.optimizer)  # it must exist before a capture
        changing = self._changing_tensors()
        before, totals = [tensor.detach().clone() for tensor in changing], copy.deepcopy(self.totals.state_dict())
        random = torch.get_rng_state(), torch.cuda.get_rng_state(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self.update(buffers)
        torch.cuda.current_stream(device).wait_stream(self._stream)
        self._draws = not torch.equal(random[1], torch.cuda.get_rng_state(device))
        self._draws |= torch.__version__ < "2.8"  # there a replay may write the seeds though it reads none

        with torch.no_grad():
            for tensor, value in zip(changing, before, strict=True):
                tensor.copy_(value)
        self.totals.load_state_dict(totals)
        torch.set_rng_state(random[0])
        torch.cuda.set_rng_state(random[1], device)
        self.optimizer.zero_grad(set_to_none=True)  # so that the captured backward pass allocates them in the pool

        torch.cuda.synchronize(device)  # so that an error of what was asked for before is not taken for the capture's
        try:
            return buffers, self._record(buffers)
        except RuntimeError as error:
            cause = error.__context__ or error  # the end of a broken capture raises an error of its own
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None  # with or without a graph: it says so itself
            what = f"{self.training.label}: the step of method {self.training.method.name} cannot be captured"
            reason = str(cause).partition("\n")[0]  # the lines below it advise on debugging CUDA
            raise CaptureFailed(f"{what} ({reason}); run.step=eager trains without a graph") from error

    def _record(self, buffers: StepInput) -> torch.cuda.CUDAGraph:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.training.device)
        try:
            # thread_local: what other threads (trackers) ask of the driver meanwhile is none of the graph's business
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                self.update(buffers)
            _latest_draw(self.training.device).record(self._stream)  # the begin of a capture has written the seeds
        finally:
            torch.cuda.set_stream(stream)  # a capture that fails leaves its own behind
        return graph

    def _changing_tensors(self) -> list[Tensor]:
        """Collect all tensors, but the totals, that outlive a step and that it may change."""
        modules = (self.training.model, self.training.method)
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        tensors += [
            value for state in self.optimizer.state.values() for value in state.values() if torch.is_tensor(value)
        ]
        tensors += self.average.tensors()
        return list({id(tensor): tensor for tensor in tensors}.values())
