"""One network of a run trained: what fit() needs is put together, the training carried out, the result written."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ltkd.config.identity import NetworkRun
from ltkd.data import build_sampler
from ltkd.files import write_json
from ltkd.loop.precision import autocast
from ltkd.loop.teacher_logits import TeacherLogits, use_cache
from ltkd.loop.tracking import Tracker
from ltkd.loop.trainer import fit
from ltkd.loop.training import Training
from ltkd.losses import ClassGroups
from ltkd.methods import Method
from ltkd.runs.build import TrainedTeacher, given_weights, task_only
from ltkd.runs.post_hoc import post_hoc_figures
from ltkd.runs.result import teacher_in_short, write_result
from ltkd.runs.retrain import retrain
from ltkd.runs.robustness import robustness_figures
from ltkd.runs.sessions import session
from ltkd.setup import Setup


def make_training(
    setup: Setup, run: NetworkRun, model: nn.Module, method: Method, teacher: TrainedTeacher | None,
    extra_teachers: Sequence[TrainedTeacher] = (),
) -> Training:  # fmt: skip
    """Collects what fit() needs to train `model` on `method`'s objective."""
    config, split = setup.config, setup.data.split
    recipe = config.recipe_of(run.network)
    if given_weights(run.network) is not None:
        recipe = dataclasses.replace(recipe, epochs=0)  # weights from a file are used as they are
    groups = ClassGroups.of(torch.as_tensor(split.groups, device=setup.device))
    only_logits = teacher is not None and method.needs.teacher_logits_only
    return Training(
        label=f"{run.role} {run.network.name}", identity=run.hash, model=model, method=method,
        teacher=teacher.model if teacher else None, extra_teachers=[one.model for one in extra_teachers],
        teacher_logits=_precomputed_logits(setup, teacher, recipe.epochs) if only_logits else None,
        extra_logits=[_precomputed_logits(setup, one, recipe.epochs) for one in extra_teachers],
        train=setup.train, test=setup.test, validation=setup.validation,
        split=split, groups=groups, recipe=recipe, seed=run.seed, device=setup.device,
        sampler=build_sampler(recipe.sampling, torch.as_tensor(setup.data.train_labels)),
        autocast=functools.partial(autocast, config.precision, setup.device),
        evaluate_every=config.run.evaluate_every, progress=config.run.progress, step=config.run.step,
    )  # fmt: skip


def _precomputed_logits(setup: Setup, teacher: TrainedTeacher, epochs: int) -> TeacherLogits:
    """The teacher's logits on the training images, with the cache that is kept beside it."""
    config, result = setup.config, teacher.result
    logits = TeacherLogits(
        teacher.model, setup.train, functools.partial(autocast, config.precision, setup.device),
        num_classes=config.dataset.num_classes, storage=config.cache.storage,
    )  # fmt: skip
    if teacher.directory is not None:
        about = {
            "weights": result["weights_sha256"], "data": setup.data.manifest()["train_data_sha256"],
            "mean": config.dataset.mean, "std": config.dataset.std, "crop_padding": setup.train.crop_padding,
            "horizontal_flip": setup.train.horizontal_flip, "precision": dataclasses.asdict(config.precision),
        }  # fmt: skip
        use_cache(
            logits, label=f"teacher {result['teacher']}", directory=teacher.directory, about=about,
            settings=config.cache, epochs=epochs, progress=config.run.progress,
        )  # fmt: skip
    return logits


def train_network(
    setup: Setup, run: NetworkRun, model: nn.Module, method: Method, teacher: TrainedTeacher | None,
    extra_teachers: Sequence[TrainedTeacher] = (),
) -> dict[str, Any]:  # fmt: skip
    """Train (or resume) and return the result, which is then on disk with the weights."""
    with session(run.directory, setup.device, f"{run.role} {run.network.name}") as sessions:
        return _train_network(setup, run, model, method, teacher, extra_teachers, sessions)


def _train_network(
    setup: Setup, run: NetworkRun, model: nn.Module, method: Method, teacher: TrainedTeacher | None,
    extra_teachers: Sequence[TrainedTeacher], sessions: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    start, config, names = time.perf_counter(), setup.config, run.names
    write_json(run.directory / "config.json", run.settings)
    training = make_training(setup, run, model, method, teacher, extra_teachers)
    tracker = Tracker(
        run.directory, config.wandb, name=f"{names['label']}-s{run.seed}", group=f"{names['label']}-{names['cell']}",
        job_type=run.role, tags=[names["dataset"], names["method"], config.study], config=run.settings,
        run_id=run.tracking_id,
    )  # fmt: skip
    with tracker:
        fitted = fit(training, run.directory, tracker)
        figures = {
            "sessions": sessions,
            "further_teacher_results": [teacher_in_short(one.result) for one in extra_teachers],
        }
        if run.network.retraining is not None:
            figures["before_retraining"] = fitted.accuracy
            cross_entropy = task_only(setup, dataclasses.replace(run.network, task_loss="ce"))
            fitted = fitted.followed_by(retrain(run.network, training, cross_entropy, run.directory, tracker))
        figures["post_hoc"] = post_hoc_figures(setup, model)
        if run.role == "student":
            figures["robustness"] = robustness_figures(setup, method, model, teacher.model if teacher else None)
        result = write_result(
            setup, run, model, fitted, teacher.result if teacher else None, figures, time.perf_counter() - start
        )
        tracker.summarize({"accuracy": result["accuracy"], "images_per_second": result["images_per_second"]})
    return result
