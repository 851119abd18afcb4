"""Runs an experiment from configuration to result: data, teacher, student."""

import copy
import functools
import logging

import torch
from torch import nn

from ltkd.config.identity import student_run
from ltkd.config.schema import Config
from ltkd.machine import git_state
from ltkd.ranks import Ranks
from ltkd.results.read import read_result
from ltkd.results.regroup import policy_of
from ltkd.results.result import Result
from ltkd.runs.build import TrainedTeacher, make_method, new_method, new_model, start_from_teacher
from ltkd.runs.directory import RunDirectory, RunLocked
from ltkd.runs.parallel import check_ranks
from ltkd.runs.post_hoc import warn_of_other_tau
from ltkd.runs.result import made_by
from ltkd.runs.teacher_store import find_or_train_teacher
from ltkd.runs.train import train_network
from ltkd.setup import Setup, describe, prepare

logger = logging.getLogger(__name__)


def run_experiment(config: Config, ranks: Ranks | None = None) -> Result | None:
    """Run, resume or skip what `config` describes and return its result.json; None if another process is at it.

    ranks: the processes that do it together, all of which call this. By default it is this one alone.
    """
    ranks = ranks or Ranks()
    git_state()  # now: the result, hours later, names the commit that the run started from
    check_ranks(config, ranks)
    run = student_run(config)
    try:
        with RunDirectory(run, ranks).open(wait=False) as directory:
            if directory.finished is not None:
                directory.check_source()
                logger.info("finished before, skipped (%s)", made_by(directory.finished, config))
                _warn_of_other_evaluation(directory)
                return directory.finished
            result = _train(directory)
            return ranks.from_first(lambda: directory.reported(result))
    except RunLocked:
        logger.warning("left alone: another process works on %s", run.directory)
        return None


def _train(directory: RunDirectory) -> Result:
    run, config = directory.run, directory.run.config
    setup = prepare(config, directory.ranks)
    logger.info("%s", describe(setup))
    directory.check_data(setup.data)

    model = new_model(setup, run.network, run.seed)  # first: if it cannot be built, no teacher is trained
    teacher = None
    if config.needs_teacher:
        teacher = find_or_train_teacher(setup, check=functools.partial(_check_pair, setup, model))
    extra_teachers = [find_or_train_teacher(setup, extra) for extra in config.extra_teachers]

    if config.student.start == "teacher":
        share = start_from_teacher(config, model, teacher.model)
        names = config.student.name, config.teacher.name
        logger.info("student %s: starts from teacher %s, with %.0f %% of its parameters", *names, 100 * share)
    method = new_method(setup, model, teacher, len(extra_teachers))
    model = method.adapt_student(model).to(setup.device, memory_format=torch.channels_last)
    return train_network(setup, directory, model, method, teacher, extra_teachers)


def _check_pair(setup: Setup, model: nn.Module, teacher: TrainedTeacher) -> None:
    """Refuse a pair that does not go with the method or the start, before the teacher is trained."""
    make_method(setup, model, teacher, len(setup.config.extra_teachers))
    if setup.config.student.start == "teacher":
        start_from_teacher(setup.config, copy.deepcopy(model), teacher.model)


def _warn_of_other_evaluation(directory: RunDirectory) -> None:
    """Warns where a finished run, which is not evaluated again, was evaluated otherwise than is asked for now."""
    config, result = directory.run.config, directory.finished
    if (
        groups := directory.ranks.from_first(lambda: policy_of(read_result(directory.result)))
    ) != config.dataset.groups:
        logger.info("its groups were %s; per group it is given for %s", groups, config.dataset.groups)
    if result["evaluate_every"] != config.run.evaluate_every:
        logger.warning("it was evaluated every %d epochs", result["evaluate_every"])
    warn_of_other_tau(config, result)
    if config.evaluation.robustness is True and result.get("robustness") is None:
        logger.warning("it has no accuracy under attack; in another study it is run again and has it")
