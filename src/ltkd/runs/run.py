"""One run from configuration to result: data, teacher, student."""

import functools
import logging
from typing import Any

import torch

from ltkd.config.identity import student_run
from ltkd.config.schema import Config
from ltkd.machine import git_state
from ltkd.runs.build import make_method, new_method, new_model
from ltkd.runs.directory import RunLocked, agree_on_data, agree_on_source, finished_result, locked, recorded
from ltkd.runs.post_hoc import warn_of_other_tau
from ltkd.runs.result import made_by
from ltkd.runs.teacher_store import find_or_train_teacher
from ltkd.runs.train import train_network
from ltkd.setup import describe, prepare

logger = logging.getLogger(__name__)


def run_experiment(config: Config) -> dict[str, Any] | None:
    """Run, resume or skip what `config` describes and return its result.json; None if another process is at it."""
    git_state()  # now: the result, hours later, names the commit that the run started from
    run = student_run(config)
    try:
        with locked(run.directory, wait=False):
            result = finished_result(run.directory, run.identity)
            if result is not None:
                agree_on_source(run.directory, config)
                logger.info("finished before, skipped (%s)", made_by(result))
                if result["evaluate_every"] != config.run.evaluate_every:
                    logger.warning("it was evaluated every %d epochs", result["evaluate_every"])
                warn_of_other_tau(config, result)
                if config.evaluation.robustness is True and result.get("robustness") is None:
                    logger.warning("it has no accuracy under attack; in another study it is run again and has it")
                return result
            with recorded(run.directory, run.names):
                setup = prepare(config)
                logger.info("%s", describe(setup))
                agree_on_data(run.directory, setup.data)
                model = new_model(setup, run.network, run.seed)  # first: if it cannot be built, no teacher is trained
                wanted = config.extra_teachers
                teacher = None
                if config.needs_teacher:
                    # what does not go together is said before a teacher is trained
                    check = functools.partial(make_method, setup, model, num_extra_teachers=len(wanted))
                    teacher = find_or_train_teacher(setup, check=check)
                if wanted:  # a teacher that was there already was not checked
                    make_method(setup, model, teacher, len(wanted))
                further = [find_or_train_teacher(setup, one) for one in wanted]
                method = new_method(setup, model, teacher, len(further))
                model = method.adapt_student(model).to(setup.device, memory_format=torch.channels_last)
                return train_network(setup, run, model, method, teacher, further)
    except RunLocked:
        logger.warning("left alone: another process works on %s", run.directory)
        return None
