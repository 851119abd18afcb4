"""The teacher store: a teacher is trained once, under a lock, and verified and reused by every run that needs it."""

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ltkd.config.identity import NetworkRun, teacher_run
from ltkd.config.schema import Teacher
from ltkd.errors import UserError
from ltkd.files import file_sha256
from ltkd.models import load_weights
from ltkd.runs.build import TrainedTeacher, new_model, task_only
from ltkd.runs.directory import RESULT, WEIGHTS, agree_on_data, finished_result, locked, recorded
from ltkd.runs.given_teacher import check_given
from ltkd.runs.result import made_by
from ltkd.runs.swag import (
    STATISTICS,
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
    """`teacher`, by default the configuration's, from outputs/teachers/; trained first where it is not there yet.

    `check` is called with the untrained network before it is trained: what it raises costs no training.
    Waits while another process trains it. UserError when what is stored is damaged or was trained on other data.
    """
    run = teacher_run(setup.config, teacher)
    model = new_model(setup, run.network, run.seed)
    if run.network.checkpoint is not None:
        check_given(setup, model, run.network)
    with locked(run.directory, wait=True):
        agree_on_data(run.directory, setup.data)
        result = finished_result(run.directory, run.identity)
        if result is None:
            if check is not None:
                check(TrainedTeacher(model, {}))
            with recorded(run.directory, run.names):
                result = _train(setup, run, model)
        else:
            logger.info("teacher %s: reused from %s (%s)", run.network.name, run.directory, made_by(result))
    weights = run.directory / WEIGHTS
    if file_sha256(weights) != result["weights_sha256"]:
        raise UserError(f"{weights}: not the weights that {RESULT} speaks of; delete the folder to train them again")
    load_weights(model, weights)
    model.zero_grad(set_to_none=True)  # of its own training, if that was just now: memory that no one needs
    return TrainedTeacher(model.eval().requires_grad_(False), result, run.directory)


def _train(setup: Setup, run: NetworkRun, model: nn.Module) -> dict[str, Any]:
    """The result of a teacher that is not there yet. A sample of a SWAG posterior needs the posterior, which needs the
    teacher: each is found or trained in turn."""
    teacher = run.network
    if teacher.swag is None:
        return train_network(setup, run, model, task_only(setup, teacher), None)
    run = replace(run, network=swag_training(teacher, setup.config.recipe_of(teacher).sampling))
    if teacher.swag.sample is None:
        trained = find_or_train_teacher(setup, replace(teacher, swag=None))
        model.load_state_dict(trained.model.state_dict())
        collector = functools.partial(WeightCollector, model=model, swag=teacher.swag, path=run.directory / STATISTICS)
        return train_network(setup, run, model, task_only(setup, teacher, collector), None)
    posterior = replace(teacher, swag=replace(teacher.swag, sample=None))
    find_or_train_teacher(setup, posterior)
    statistics = load_statistics(teacher_run(setup.config, posterior).directory)
    generator = torch.Generator().manual_seed(int(run.hash, 16))  # on the CPU: the same sample on every device
    set_weights(model, draw_weights(statistics, generator))
    refresh_batch_norm(setup, model, setup.config.recipe_of(teacher).batch_size, generator)
    return train_network(setup, run, model, task_only(setup, teacher), None)
