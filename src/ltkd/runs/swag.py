"""SWAG, a Gaussian around a trained network, from which extra teachers are drawn.

Maddox et al.: A Simple Baseline for Bayesian Uncertainty in Deep Learning, arXiv:1902.02476. The trained network is
trained on for some epochs at a constant learning rate; of its weights after each of them are kept: the mean, the
variance, and the last `rank` deviations from the running mean. A sample of the posterior is

    mean + sqrt(variance / 2) z1 + deviations z2 / sqrt(2 (columns - 1)),      z1, z2 standard normal,

with the batch-normalisation statistics of its own pass over the training images. Memory, in the training and on disk:
(rank + 2) times the parameters; each sample is a network of its own.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltkd.config.schema import Recipe, Swag, Teacher
from ltkd.errors import UserError
from ltkd.loop.checkpoint import load_checkpoint, save_checkpoint
from ltkd.loop.precision import autocast
from ltkd.methods import MethodContext, method_class
from ltkd.models import evaluating
from ltkd.ranks import Ranks
from ltkd.results.files import RunFiles
from ltkd.setup import Setup
from ltkd.task_losses import TaskLoss


def swag_training(teacher: Teacher, sampling: str | dict[str, Any]) -> Teacher:
    """Return the network with the recipe of its collection, or, for a sample, with nothing to be trained.

    sampling: of the training, which the collection goes on with; a progressive one has come to classes alike.
    A retrained classifier is where the collection starts, and is trained on with the rest.
    """
    recipe = {
        "sampling": "class_balanced" if sampling == "progressive" else sampling,
        "epochs": teacher.swag.epochs if teacher.swag.sample is None else 0,
        "learning_rate": teacher.swag.learning_rate,
        "schedule": "constant",
        "warmup_epochs": 0,
        "milestones": [],
        "decay_factors": [],
    }
    return replace(teacher, checkpoint=None, retraining=None, recipe=teacher.recipe | recipe)


class WeightCollector(method_class("ce")):
    """A teacher's objective that keeps the moments of the weights in buffers, and so in the checkpoint; the last epoch
    writes them to `path`, where there is one."""

    def __init__(
        self, context: MethodContext, task_loss: TaskLoss, model: nn.Module, swag: Swag, path: Path | None
    ) -> None:
        super().__init__(context, task_loss)
        self.swag, self.path = swag, path
        size = sum(parameter.numel() for parameter in model.parameters())
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("squares", torch.zeros(size))  # sum of squared deviations from the mean (Welford)
        self.register_buffer("deviations", torch.zeros(swag.rank, size))

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(self.epochs + 1)  # all of them come after the training: what was deferred is in force

    @torch.no_grad()
    def end_epoch(self, model: nn.Module) -> None:
        weights = torch.cat([parameter.reshape(-1) for parameter in model.parameters()])
        position = int(self.count) % self.swag.rank
        self.count += 1
        before = weights - self.mean
        self.mean += before / self.count
        self.deviations[position] = weights - self.mean
        self.squares += before * self.deviations[position]
        if self.count == self.swag.epochs and self.path is not None:
            save_checkpoint(self.path, {key: value.cpu() for key, value in self.statistics().items()})

    def statistics(self) -> dict[str, Tensor]:
        """mean [P], variance [P], deviations [min(rank, epochs), P]."""
        columns = min(int(self.count), self.swag.rank)
        return {"mean": self.mean, "variance": self.squares / self.count, "deviations": self.deviations[:columns]}


def draw_weights(statistics: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Draw one sample of the weights [P]; statistics and generator on the CPU."""
    mean, deviations = statistics["mean"], statistics["deviations"]
    diagonal = torch.randn(mean.shape, generator=generator) * (statistics["variance"] / 2).sqrt()
    coefficients = torch.randn(len(deviations), generator=generator) / (2 * (len(deviations) - 1)) ** 0.5
    return mean + diagonal + coefficients @ deviations


def load_statistics(files: RunFiles) -> dict[str, Tensor]:
    """Read the statistics of a finished collection. UserError when it is missing or damaged."""
    try:
        return load_checkpoint(files.swag)
    except UserError as error:
        raise UserError(f"{error}. Delete the whole folder {files.folder} to have it collected again") from error


@torch.no_grad()
def set_weights(model: nn.Module, weights: Tensor) -> None:
    """Copy weights [P] into the network; a parameter keeps its place and its memory format."""
    parameters = list(model.parameters())
    for parameter, values in zip(parameters, weights.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(values.view(parameter.shape))


@torch.no_grad()
def refresh_batch_norm(setup: Setup, model: nn.Module, recipe: Recipe, generator: torch.Generator) -> None:
    """Set the statistics of batch normalisation to their means over one epoch of augmented training batches."""
    # whole batches, in every process
    train, batch_size = setup.train.augmented(recipe.augmentation).shared_by(Ranks()), recipe.batch_size
    layers = {layer: layer.momentum for layer in model.modules() if isinstance(layer, _BatchNorm)}
    plan = train.draw_epoch(generator)
    with evaluating(model):
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # plain averages
            layer.train()
        for step in range(len(train.steps(batch_size)) if layers else 0):
            with autocast(setup.config.precision, setup.device):
                model(train.batch(plan, step, batch_size).images)
    for layer, momentum in layers.items():
        layer.momentum = momentum
