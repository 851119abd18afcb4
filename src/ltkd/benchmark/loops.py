"""The two training loops that are compared. Both train the same networks on the same objective, without a store."""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from ltkd.config.identity import student_run
from ltkd.config.schema import Config
from ltkd.data import Batch
from ltkd.errors import UserError
from ltkd.loop.evaluate import evaluate
from ltkd.loop.graph import make_step
from ltkd.loop.state import State, save_state
from ltkd.loop.teacher_logits import WINDOW
from ltkd.loop.tracking import Tracker
from ltkd.loop.turns import Turns, turns
from ltkd.machine import num_cores
from ltkd.methods import Method
from ltkd.ranks import Ranks
from ltkd.results.files import RunFiles
from ltkd.runs.build import TrainedTeacher, new_method, new_model
from ltkd.runs.train import make_training
from ltkd.setup import Setup, prepare, synthetic_setup

T = TypeVar("T")

WORKERS = 2  # of the plain loop's DataLoader: the field's number


class Pair:
    """Student, teacher and objective of a configuration, with weights that nobody has trained: speed is the same."""

    def __init__(self, config: Config, folder: Path, *, made_up: bool, ranks: Ranks | None = None) -> None:
        self.setup: Setup = synthetic_setup(config, 2 * WINDOW) if made_up else prepare(config, ranks)
        self.student: nn.Module = new_model(self.setup, config.student, config.seed)
        self.teacher: TrainedTeacher | None = None
        if config.needs_teacher:
            if config.extra_teachers:
                raise UserError(f"method.name: {config.method_name} has more than one teacher and is not measured")
            network = new_model(self.setup, config.teacher, config.teacher.seed).eval().requires_grad_(False)
            result = {"teacher": config.teacher.name, "weights_sha256": "untrained"}
            self.teacher = TrainedTeacher(network, result, folder / config.teacher.name.replace("/", "_"))
        self.method: Method = new_method(self.setup, self.student, self.teacher).train()
        self.student = self.method.adapt_student(self.student).to(self.setup.device).train()


class EngineLoop:
    """Runs the engine's steps repeatedly over one fixed epoch; from the second time on a cache has every logit.

    ranks: the processes that share each batch, all of which run the same steps.
    """

    def __init__(self, config: Config, folder: Path, *, made_up: bool = False, ranks: Ranks | None = None) -> None:
        pair = Pair(config, folder, made_up=made_up, ranks=ranks)
        setup, batch_size = pair.setup, config.recipe_of(config.student).batch_size
        self.device = setup.device
        self._training = make_training(setup, student_run(config), pair.student, pair.method, pair.teacher)
        self._wandb = config.wandb
        self._step = make_step(self._training)
        whole_batches = len(setup.train) // batch_size
        if not whole_batches:
            raise UserError(f"recipe.batch_size: {batch_size} images are more than the {len(setup.train)} to train on")
        # Teacher logits are read and images changed a window ahead: what that costs belongs to a whole window's steps.
        self.steps = max(1, min(whole_batches, max(WINDOW // batch_size, self._training.train.steps_ahead(batch_size))))
        self.new_epoch(0)

    @property
    def is_cached(self) -> bool:
        logits = self._training.teacher_logits
        return logits is not None and logits.cache is not None

    def new_epoch(self, seed: int) -> None:
        """Draws another order, other crops and flips, which no cache has yet."""
        self._plan = self._training.train.draw_epoch(torch.Generator().manual_seed(seed))

    def whole_epoch(self) -> tuple[int, float]:
        """Returns (images, seconds) of all steps: only then is all kept that a teacher computed, window by window."""
        train = self._training.train
        return len(train), self.run(len(train.steps(self._training.recipe.batch_size)))

    def run(self, steps: int) -> float:
        """Measures the seconds of the first `steps` steps of the epoch, with all that is done before the first.

        Beside other loops it waits for its own work alone: a wait for the whole device would hold them up.
        """
        if len(turns()) < 2:
            _wait(self.device)
        start = time.perf_counter()
        self._step.start_epoch(1, self._plan, 1e-3)
        for number in range(steps):
            self._step.run(number)
            turns().pass_on()
        turns().wait_for(self.device)
        if len(turns()) < 2:
            _wait(self.device)
        return time.perf_counter() - start

    def between_epochs(self) -> dict[str, float]:
        """Measures the seconds beside the steps: one evaluation, one saved state, one line of metrics."""
        t = self._training

        def log() -> None:
            tracker.log(test.metrics("test"))

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tracker = Tracker(folder, self._wandb, name="", group="", job_type="", tags=[], config={}, run_id="")
            test = evaluate(t.model, t.test, t.split, t.autocast)  # for the first time: allocations, choice of kernels
            return {
                "evaluation": self._seconds(lambda: evaluate(t.model, t.test, t.split, t.autocast)),
                "saving": self._seconds(lambda: save_state(RunFiles(folder).checkpoint, t, State(), self._step)),
                "logging": self._seconds(log),
            }

    def _seconds(self, action: Callable[[], object]) -> float:
        _wait(self.device)
        start = time.perf_counter()
        action()
        _wait(self.device)
        return time.perf_counter() - start


class LoopsTogether:
    """Runs `number` engine loops that take turns in this process, each in a thread of its own."""

    def __init__(self, number: int, make: Callable[[], EngineLoop]) -> None:
        self._turns = Turns(number)
        self._threads = [ThreadPoolExecutor(1) for _ in range(number)]
        # one after the other: the first fills the cache of the teacher that all have
        self._loops = [thread.submit(self._seated, make).result() for thread in self._threads]
        self.device, self.steps = self._loops[0].device, self._loops[0].steps
        self.is_cached = self._loops[0].is_cached

    def _seated(self, action: Callable[..., T], *arguments: Any) -> T:
        with self._turns.seat():
            return action(*arguments)

    def run(self, steps: int) -> float:
        """Measures the seconds in which every loop has done `steps` steps."""
        _wait(self.device)
        start = time.perf_counter()
        running = [
            thread.submit(self._seated, loop.run, steps)
            for thread, loop in zip(self._threads, self._loops, strict=True)
        ]
        for future in running:
            future.result()
        _wait(self.device)
        return time.perf_counter() - start


class PlainLoop:
    """The loop that the field's repositories have: augmentation by torchvision on PIL images in worker processes, both
    networks in float32 in every step, the loss read back after each."""

    def __init__(self, config: Config, folder: Path, *, made_up: bool = False) -> None:
        without_cache = dataclasses.replace(config, cache=dataclasses.replace(config.cache, mode="off"))
        pair = Pair(without_cache, folder, made_up=made_up)
        self.device, self._method = pair.setup.device, pair.method
        for network in (pair.student, pair.teacher.model if pair.teacher else None):
            if network is not None:
                network.to(memory_format=torch.contiguous_format)
        self._student, self._teacher = pair.student, pair.teacher.model if pair.teacher else None
        recipe = config.recipe_of(config.student)
        parameters = [p for module in (self._student, self._method) for p in module.parameters() if p.requires_grad]
        self._optimizer = torch.optim.SGD(
            parameters, lr=1e-3, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        if self.device.type == "cuda":  # as the field's loops have it: torch's default, and kernels chosen by time
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
        self._batches = self._endless(_loader(config, pair.setup, recipe.batch_size))
        self.steps, self.is_cached = 0, False  # any number of steps
        if self._method.needs.second_view or self._method.needs.input_gradients:
            raise UserError(f"method.name: the plain loop does not know how to run {config.method_name}")

    def run(self, steps: int) -> float:
        """Measures the seconds of the next `steps` steps; reading the loss back makes each wait for the device."""
        start = time.perf_counter()
        for images, labels, index in itertools.islice(self._batches, steps):
            self._train(Batch(images.to(self.device), labels.to(self.device), index.to(self.device)))
        return time.perf_counter() - start

    def _train(self, batch: Batch) -> None:
        features = self._method.needs.stages
        teacher = None
        if self._teacher is not None:
            with torch.no_grad():
                teacher = self._teacher(batch.images, features=features)
        student = self._student(batch.images, features=features)
        loss = sum(self._method(student, teacher, batch).values())
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.last = loss.item(), (student.logits.argmax(1) == batch.labels).float().mean().item()

    @staticmethod
    def _endless(loader: torch.utils.data.DataLoader) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        while True:
            yield from loader


class _PilImages(torch.utils.data.Dataset):
    def __init__(self, images: list[Image.Image], labels: list[int], transform) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        return self.transform(self.images[index]), self.labels[index], index


def _loader(config: Config, setup: Setup, batch_size: int) -> torch.utils.data.DataLoader:
    from torchvision import transforms

    dataset, arrays = config.dataset, setup.data.decoded().train_images
    steps = [transforms.RandomCrop(dataset.image_size, padding=dataset.crop_padding)]
    steps += [transforms.RandomHorizontalFlip()] * dataset.horizontal_flip
    steps += [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
    images = [Image.fromarray(a.transpose(1, 2, 0).squeeze()) for a in arrays]
    data = _PilImages(images, setup.data.train_labels.tolist(), transforms.Compose(steps))
    return torch.utils.data.DataLoader(
        data,
        batch_size,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        drop_last=True,
        pin_memory=setup.device.type == "cuda",
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of the best of some large matrix products: what the whole device can do.

    Up to six, but no further one after a second. On a CPU they are as large as one of a twentieth of a second, at most
    1024 x 1024: a processor without bfloat16 instructions would need a minute for that. On a GPU those of float32 are
    in TF32 where the convolutions are, as in the plain loop: nearly all operations of a network are theirs.
    """
    threads, before = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(num_cores())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    size = 8192 if device.type == "cuda" else 128
    while size < 1024 and _product_seconds(size, device, dtype) < 0.05:
        size *= 2
    seconds: list[float] = []
    while len(seconds) < 6 and sum(seconds) < 1:
        seconds.append(_product_seconds(size, device, dtype))
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * size**3 / min(seconds)


def _product_seconds(size: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    _wait(device)
    start = time.perf_counter()
    a @ b
    _wait(device)
    return time.perf_counter() - start
