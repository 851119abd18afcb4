"""Trains one network of a run: collects what its Trainer needs, trains, evaluates, writes the result."""

import dataclasses
import functools
import logging
import time
from collections.abc import Sequence

import torch
from torch import nn

from ltkd.config.identity import NetworkRun
from ltkd.data import build_augmentation, build_sampler
from ltkd.files import write_json
from ltkd.loop.precision import autocast
from ltkd.loop.teacher_logits import TeacherLogits, use_cache
from ltkd.loop.tracking import NoTracker, Tracker
from ltkd.loop.trainer import Trainer
from ltkd.loop.training import Training
from ltkd.losses import ClassGroups
from ltkd.methods import Method
from ltkd.results.result import Findings, Result, Session
from ltkd.runs.build import TrainedTeacher, given_weights, task_only
from ltkd.runs.directory import RunDirectory
from ltkd.runs.parallel import synchronize_batch_norm
from ltkd.runs.post_hoc import post_hoc_corrections
from ltkd.runs.result import teacher_in_short, write_result
from ltkd.runs.retrain import retrain
from ltkd.runs.robustness import accuracy_under_attack
from ltkd.runs.sessions import session
from ltkd.runs.shown import bias_rows, filters, per_class_rows
from ltkd.setup import Setup

logger = logging.getLogger(__name__)


def make_training(
    setup: Setup,
    run: NetworkRun,
    model: nn.Module,
    method: Method,
    teacher: TrainedTeacher | None,
    extra_teachers: Sequence[TrainedTeacher] = (),
) -> Training:
    """Collects what a Trainer needs to train `model` on `method`'s objective."""
    config, split = setup.config, setup.data.split
    recipe = config.recipe_of(run.network)
    if given_weights(run.network) is not None:
        recipe = dataclasses.replace(recipe, epochs=0)  # weights from a file are used as they are
    if config.precision.sync_batch_norm:
        model, method = synchronize_batch_norm(setup.ranks, setup.train, recipe, model, method)
    groups = ClassGroups.of(torch.as_tensor(split.groups, device=setup.device))
    few_views = build_augmentation(recipe.augmentation).is_crop_flip
    only_logits = teacher is not None and method.needs.teacher_logits_only
    if (only_logits or extra_teachers) and not few_views:
        logger.info(
            "teacher %s: runs in every step, no cache holds the views of recipe.augmentation=%s",
            setup.config.teacher.name,
            recipe.augmentation,
        )
    return Training(
        label=f"{run.role} {run.network.name}", identity=run.hash, model=model, method=method,
        teacher=teacher.model if teacher else None, extra_teachers=[extra.model for extra in extra_teachers],
        teacher_logits=_precomputed_logits(setup, teacher, recipe.epochs) if only_logits and few_views else None,
        extra_logits=[_precomputed_logits(setup, extra, recipe.epochs) for extra in extra_teachers if few_views],
        train=setup.train.augmented(recipe.augmentation), test=setup.test, validation=setup.validation,
        split=split, groups=groups, recipe=recipe, seed=run.seed, device=setup.device,
        sampler=build_sampler(recipe.sampling, torch.as_tensor(setup.data.train_labels)),
        autocast=functools.partial(autocast, config.precision, setup.device),
        evaluate_every=config.run.evaluate_every, step=config.run.step,
        progress=config.run.progress if setup.ranks.is_first else "none",
    )  # fmt: skip


def _precomputed_logits(setup: Setup, teacher: TrainedTeacher, epochs: int) -> TeacherLogits:
    """The teacher's logits on the training images, with the cache that is kept beside it."""
    config, result = setup.config, teacher.result
    logits = TeacherLogits(
        teacher.model,
        setup.train,
        functools.partial(autocast, config.precision, setup.device),
        num_classes=config.dataset.num_classes,
        storage=config.cache.storage,
    )
    if teacher.directory is not None:
        about = {
            "weights": result["weights_sha256"],
            "data": setup.data.manifest()["train_data_sha256"],
            "mean": config.dataset.mean,
            "std": config.dataset.std,
            "crop_padding": setup.train.crop_padding,
            "horizontal_flip": setup.train.horizontal_flip,
            "precision": {"autocast": config.precision.autocast, "tf32": config.precision.tf32},
        }
        use_cache(
            logits,
            label=f"teacher {result['teacher']}",
            directory=teacher.directory,
            about=about,
            settings=config.cache,
            epochs=epochs,
            progress=config.run.progress if setup.ranks.is_first else "none",
        )
    return logits


def train_network(
    setup: Setup,
    directory: RunDirectory,
    model: nn.Module,
    method: Method,
    teacher: TrainedTeacher | None,
    extra_teachers: Sequence[TrainedTeacher] = (),
) -> Result:
    """Train (or resume) and return the result, which is then on disk with the weights."""
    label = f"{directory.run.role} {directory.run.network.name}"
    with session(directory, setup.device, label, setup.ranks) as sessions:
        return _train_network(setup, directory, model, method, teacher, extra_teachers, sessions)


def _train_network(
    setup: Setup,
    directory: RunDirectory,
    model: nn.Module,
    method: Method,
    teacher: TrainedTeacher | None,
    extra_teachers: Sequence[TrainedTeacher],
    sessions: list[Session],
) -> Result:
    start, config, run, names = time.perf_counter(), setup.config, directory.run, directory.run.names
    setup.ranks.from_first(lambda: write_json(directory.config, run.settings))
    training = make_training(setup, run, model, method, teacher, extra_teachers)
    tracker = (Tracker if setup.ranks.is_first else NoTracker)(
        directory.folder,
        config.wandb,
        name=f"{names['label']}-s{run.seed}",
        group=f"{names['label']}-{names['cell']}",
        job_type=run.role,
        tags=[names["dataset"], names["method"], config.study],
        config=run.settings | filters(run),
        run_id=run.tracking_id,
    )
    with tracker:
        fitted = Trainer(training, directory, tracker).fit()
        findings: Findings = {
            "sessions": sessions,
            "further_teacher_results": [teacher_in_short(extra.result) for extra in extra_teachers],
        }
        if run.network.retraining is not None:
            findings["before_retraining"] = fitted.accuracy
            cross_entropy = task_only(setup, dataclasses.replace(run.network, task_loss="ce"))
            second = retrain(run.network, training, cross_entropy, directory, tracker)
            fitted = fitted.followed_by(second)
        findings["post_hoc"] = post_hoc_corrections(setup, model)
        if method.needs.held_out:
            findings["learned_from_validation"] = True
        if run.role == "student":
            findings["robustness"] = accuracy_under_attack(setup, method, model, teacher.model if teacher else None)
        teacher_result = teacher.result if teacher else None
        seconds = time.perf_counter() - start
        result = setup.ranks.from_first(
            lambda: write_result(setup, directory, model, fitted, teacher_result, findings, seconds)
        )
        tracker.show({"accuracy per class": per_class_rows(result)}, {"bias": bias_rows(result, teacher)})
        tracker.summarize({"accuracy": result["accuracy"], "images_per_second": result["images_per_second"]})
    return result
