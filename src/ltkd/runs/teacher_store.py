"""Trains a teacher once, under a lock; every run that needs it verifies and reuses it."""

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ltkd.config.identity import teacher_run
from ltkd.config.schema import Teacher
from ltkd.errors import UserError
from ltkd.files import file_sha256
from ltkd.models import load_weights
from ltkd.results.result import Result
from ltkd.runs.build import TrainedTeacher, new_model, task_only
from ltkd.runs.directory import RunDirectory
from ltkd.runs.given_teacher import check_given
from ltkd.runs.result import made_by
from ltkd.runs.swag import (
    WeightCollector,
    draw_weights,
    load_statistics,
    refresh_batch_norm,
    set_weights,
    swag_training,
)
from ltkd.runs.train import train_network
from ltkd.setup import Setup

logger = logging.getLogger(__name__)


def find_or_train_teacher(
    setup: Setup, teacher: Teacher | None = None, *, check: Callable[[TrainedTeacher], Any] | None = None
) -> TrainedTeacher:
    """Find `teacher`, by default the configuration's, in outputs/teachers/, or train it first.

    `check` is called first, with the network untrained: what it raises costs no training.
    Waits while another process trains it. UserError when what is stored is damaged or was trained on other data.
    """
    run = teacher_run(setup.config, teacher)
    network: Teacher = run.network
    model = new_model(setup, network, run.seed)
    if network.checkpoint is not None:
        check_given(setup, model, run.network)
    if check is not None:
        check(TrainedTeacher(model, None))
    with RunDirectory(run, setup.ranks).open(wait=True) as directory:
        directory.check_data(setup.data)
        if directory.finished is not None:
            source = made_by(directory.finished, setup.config)
            logger.info("teacher %s: reused from %s (%s)", run.network.name, run.directory, source)
        result = directory.finished or _train(setup, directory, model)
    setup.ranks.from_first(lambda: _load_weights(model, directory, result))
    setup.ranks.equalize([*model.parameters(), *model.buffers()])
    model.zero_grad(set_to_none=True)  # of its own training, if that was just now: memory that no one needs
    return TrainedTeacher(model.eval().requires_grad_(False), result, run.directory)


def _load_weights(model: nn.Module, directory: RunDirectory, result: Result) -> None:
    weights, speaker = directory.weights, directory.result.name
    if file_sha256(weights) != result["weights_sha256"]:
        raise UserError(f"{weights}: not the weights that {speaker} speaks of; delete the folder to train them again")
    load_weights(model, weights)


def _train(setup: Setup, directory: RunDirectory, model: nn.Module) -> Result:
    """Train a teacher that is not there yet and return its result.

    A sample of a SWAG posterior needs the posterior, which needs the teacher: each is found or trained in turn.
    """
    run = directory.run
    teacher: Teacher = run.network
    if teacher.swag is None:
        return train_network(setup, directory, model, task_only(setup, teacher), None)
    directory.run = replace(run, network=swag_training(teacher, setup.config.recipe_of(teacher).sampling))
    if teacher.swag.sample is None:
        trained = find_or_train_teacher(setup, replace(teacher, swag=None))
        model.load_state_dict(trained.model.state_dict())
        path = directory.swag if setup.ranks.is_first else None
        collector = functools.partial(WeightCollector, model=model, swag=teacher.swag, path=path)
        return train_network(setup, directory, model, task_only(setup, teacher, collector), None)
    posterior = replace(teacher, swag=replace(teacher.swag, sample=None))
    find_or_train_teacher(setup, posterior)
    files = teacher_run(setup.config, posterior).files
    statistics = setup.ranks.from_first(lambda: load_statistics(files))
    generator = torch.Generator().manual_seed(int(run.hash, 16))  # on the CPU: the same sample on every device
    set_weights(model, draw_weights(statistics, generator))
    refresh_batch_norm(setup, model, setup.config.recipe_of(teacher), generator)
    return train_network(setup, directory, model, task_only(setup, teacher), None)
