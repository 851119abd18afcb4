"""Takes the time: every variant waits in processes of its own, and rounds go through all of them in turn.

What the machine does beside falls on all variants alike that way, and no variant inherits another's memory, threads or
captured graphs. Numbers are medians over the rounds.
"""

import contextlib
import logging
import multiprocessing
import os
import resource
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

from ltkd.benchmark.loops import EngineLoop, LoopsTogether, PlainLoop, peak_flops
from ltkd.benchmark.variants import Variant
from ltkd.config.compose import compose_values
from ltkd.config.load import load_config
from ltkd.config.schema import Config, Network
from ltkd.errors import UserError
from ltkd.machine import num_cores
from ltkd.models import build_model, count_multiply_adds
from ltkd.ranks import Ranks
from ltkd.runs.parallel import check_ranks

T = TypeVar("T")

GPU_ROUND = 3.0  # seconds at least


@dataclass(frozen=True)
class Measurement:
    """One variant's measurements; throughput is of all its jobs together."""

    name: str
    jobs: int
    batch_size: int
    images_per_second: float
    slowest_and_fastest: tuple[float, float]  # images per second, over the rounds
    milliseconds_per_step: float  # of one job
    operations_per_image: (
        int  # floating-point operations of convolutions and matrix products; a cached teacher has none
    )
    peak_operations: float  # of all ranks' devices, measured for the number format that the variant computes in
    gigabytes: float  # of all jobs: peak device memory on a GPU, peak resident memory of the processes else
    fill_images_per_second: float | None  # how fast a teacher fills the cache, where there is one
    between_epochs: dict[str, float] | None = None  # seconds of one evaluation, saving, logging; of the engine alone

    @property
    def share_of_peak(self) -> float:
        return self.images_per_second * self.operations_per_image / self.peak_operations


def measure(
    variants: Sequence[Variant],
    overrides: Sequence[str],
    *,
    steps: int,
    rounds: int,
    folder: Path,
    say: Callable[[str], None],
) -> list[Measurement]:
    """Measure all variants of the configuration that `overrides` describe.

    One that cannot be measured is said and has no row. UserError where that leaves none.
    """
    context = multiprocessing.get_context("spawn")
    teams = [_Team(variant) for variant in variants]
    failures: list[UserError] = []

    def of_each(action: Callable[[_Team], T]) -> list[T]:
        """Carry out `action` for each team that is left; one that fails is left out from here on."""
        results = []
        for team in list(teams):
            try:
                results.append(action(team))
            except UserError as error:
                say(f"left out: {error}")
                failures.append(error)
                teams.remove(team)
                team.close()
        return results

    def prepare(team: _Team) -> None:
        say(f"preparing: {team.variant.name}")
        team.start(context, overrides, steps, folder)

    try:
        of_each(prepare)
        for number in range(rounds if teams else 0):
            say(f"round {number + 1} of {rounds}")
            of_each(_Team.run)
        rows = of_each(_Team.measurement)
    finally:
        for team in teams:
            team.close()
    if not rows:
        raise failures[0]
    return rows


class _Team:
    """The processes of one variant."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.connections: list[Connection] = []
        self.processes: list[BaseProcess] = []
        self.speeds: list[float] = []  # images per second of each round, all jobs together

    def start(self, context, overrides: Sequence[str], steps: int, folder: Path) -> None:
        """Start the processes and wait until they are ready for a round. UserError where one cannot be built."""
        variant = self.variant
        processes = 1 if variant.together else variant.jobs
        threads = max(1, num_cores() // processes)
        chosen = (*overrides, "wandb.mode=disabled", "run.progress=none", f"run.threads={threads}", *variant.overrides)
        for _ in range(processes):
            port = _free_port()
            for rank in range(variant.ranks):
                ours, theirs = context.Pipe()
                arguments = (theirs, variant, chosen, steps, folder, rank, port)
                process = context.Process(target=_work, args=arguments, daemon=False)
                process.start()
                theirs.close()
                self.connections.append(ours)
                self.processes.append(process)
            # one training after the other: they share a cache
            reports = [self._receive(ours) for ours in self.connections[-variant.ranks :]]
            self.about = reports[0]

    def run(self) -> None:
        """Carry out a round."""
        for connection in self.connections:
            connection.send("run")
        self.speeds.append(sum(self._receive(connection) for connection in self.connections))

    def measurement(self) -> Measurement:
        for connection in self.connections:
            connection.send("memory")
        gigabytes = sum(self._receive(connection) for connection in self.connections)
        between_epochs = None
        if not self.variant.plain and self.variant.jobs == self.variant.ranks == 1:
            self.connections[0].send("between epochs")
            between_epochs = self._receive(self.connections[0])
        speed, speeds = median(self.speeds), self.speeds
        return Measurement(
            self.variant.name, self.variant.jobs, self.about["batch_size"], speed, (min(speeds), max(speeds)),
            1000 * self.about["batch_size"] * self.variant.jobs / speed, self.about["operations_per_image"],
            self.variant.ranks * self.about["peak_operations"], gigabytes, self.about["fill_images_per_second"],
            between_epochs,
        )  # fmt: skip

    def close(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):  # it has ended already
                connection.send("end")
        for process in self.processes:
            process.join(20)
            process.kill()

    def _receive(self, connection: Connection):
        try:
            answer = connection.recv()
        except EOFError:
            raise UserError(f"benchmark: a process of {self.variant.name!r} ended unexpectedly") from None
        if isinstance(answer, str):
            raise UserError(f"benchmark: {self.variant.name}: {answer}")
        return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _work(
    connection: Connection, variant: Variant, overrides: Sequence[str], steps: int, folder: Path, rank: int, port: int
) -> None:
    """Builds the loop of one job, describes it, then answers orders: "run" with the speed of a round, and others."""
    logging.disable(logging.WARNING)
    try:
        config = load_config(compose_values(*overrides))
        ranks = Ranks(rank, variant.ranks, local_rank=rank)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        ranks.join()
        check_ranks(config, ranks)
        loop: EngineLoop | LoopsTogether | PlainLoop
        if variant.plain:
            loop = PlainLoop(config, folder, made_up=variant.made_up)
        elif variant.together:
            loop = LoopsTogether(variant.jobs, lambda: EngineLoop(config, folder, made_up=variant.made_up))
        else:
            loop = EngineLoop(config, folder, made_up=variant.made_up, ranks=ranks)
        steps = loop.steps or steps
        loop.run(steps)  # allocations, captured steps, compiled kernels
        on_gpu = None if loop.device.type == "cpu" else torch.cuda.max_memory_allocated(loop.device) / 1e9
        batch_size, jobs = config.recipe_of(config.student).batch_size, variant.jobs if variant.together else 1
        student, teacher = (_multiply_adds(config, network) for network in (config.student, config.teacher))
        live = config.needs_teacher and not loop.is_cached
        dtype = torch.bfloat16 if config.precision.autocast == "bfloat16" else torch.float32
        about = {
            "batch_size": batch_size,
            # backward is twice forward
            "operations_per_image": 2 * (3 * student + (teacher if live else 0)),
            "peak_operations": peak_flops(loop.device, dtype),
            "fill_images_per_second": None,
        }
        if isinstance(loop, EngineLoop) and loop.is_cached and config.cache.mode == "lazy":
            loop.whole_epoch()  # the short last batch, too, is captured once
            loop.new_epoch(1)
            (images, first), (_, again) = loop.whole_epoch(), loop.whole_epoch()
            about["fill_images_per_second"] = images / (first - again) if first > again else None
        connection.send(about)
        while (order := connection.recv()) != "end":
            answers = {
                "run": lambda: _images_per_second(loop, steps, batch_size * jobs, ranks),
                "memory": lambda: on_gpu or _resident_gigabytes(),
                "between epochs": lambda: loop.between_epochs(),  # of an EngineLoop alone
            }
            connection.send(answers[order]())
    except UserError as error:
        connection.send(str(error))
    except Exception:  # noqa: BLE001  whatever it is, the parent tells it
        connection.send(traceback.format_exc())
    finally:
        connection.close()


def _images_per_second(
    loop: EngineLoop | LoopsTogether | PlainLoop, steps: int, batch_size: int, ranks: Ranks
) -> float:
    """The speed over `steps` steps, repeated on a GPU until they fill `GPU_ROUND`: its clock rises only under load.

    Of the processes that share the batches each counts its part.
    """
    seconds, passes, at_least = 0.0, 0, GPU_ROUND if loop.device.type == "cuda" else 0.0
    while not passes or ranks.largest(seconds < at_least):  # all go on together
        seconds += loop.run(steps)
        passes += 1
    return passes * steps * batch_size / seconds / ranks.size


def _multiply_adds(config: Config, network: Network) -> int:
    dataset = config.dataset
    with torch.device("meta"):
        model = build_model(network.name, dataset.num_classes, in_channels=dataset.channels, **network.arguments)
    return count_multiply_adds(model, (dataset.channels, dataset.image_size, dataset.image_size))


def _resident_gigabytes() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
