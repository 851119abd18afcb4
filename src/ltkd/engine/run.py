"""One run from configuration to result: data, teacher, student, result.json. A teacher is a run of its own kind."""

import dataclasses
import functools
import logging
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

import ltkd
from ltkd.config import (
    Config,
    Student,
    dataset_label,
    digest,
    resolve_device,
    student_directory,
    student_identity,
    teacher_directory,
    teacher_identity,
)
from ltkd.data import DeviceData, LongTailData, check_manifest, device_data, load_data, write_manifest
from ltkd.engine.evaluate import EVALUATION_BATCH
from ltkd.engine.precision import autocast, set_backends
from ltkd.engine.run_directory import RESULT, WEIGHTS, Busy, finished_result, locked, recorded
from ltkd.engine.trainer import CHECKPOINT, FitResult, Training, fit
from ltkd.errors import UserError
from ltkd.files import file_sha256, write_json
from ltkd.methods import Method, MethodContext, build_method, build_task_loss
from ltkd.models import ModelOutput, build_model, count_multiply_adds, count_parameters, load_weights, save_weights
from ltkd.tracking import Tracker

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Workplace:
    """What the networks of one run share: the configuration, the data on the device, the device."""

    config: Config
    data: LongTailData
    device: torch.device
    train: DeviceData
    test: DeviceData
    validation: DeviceData | None


@dataclasses.dataclass(frozen=True)
class TrainedTeacher:
    model: nn.Module  # in eval mode, without gradients
    result: dict[str, Any]
    directory: Path


def run(config: Config) -> dict[str, Any] | None:
    """Run, resume or skip what `config` describes and return its result.json; None if another process is at it."""
    directory = student_directory(config)
    identity = student_identity(config)
    try:
        with locked(directory, wait=False):
            result = finished_result(directory, identity)
            if result is not None:
                logger.info("finished before, skipped: %s", directory)
                return result
            with recorded(directory, _names(config, "student", identity)):
                write_json(directory / "config.json", dataclasses.asdict(config))
                return _run(config, directory, identity)
    except Busy:
        logger.warning("left alone: another process works on %s", directory)
        return None


def _run(config: Config, directory: Path, identity: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    place = _prepare(config)
    _agree_on_data(directory, place.data)
    teacher = find_or_train_teacher(place) if config.needs_teacher else None

    model = _new_model(place, config.student, config.seed)
    method = _new_method(place, config, model, teacher)
    fitted = _fit(place, config.student, "student", config.seed, identity, directory, model, method, teacher)
    return _write_result(place, "student", identity, directory, model, fitted, teacher, time.perf_counter() - start)


def find_or_train_teacher(place: Workplace) -> TrainedTeacher:
    """The teacher from the store; trained first, under a lock, where it is not there yet."""
    config, start = place.config, time.perf_counter()
    directory, identity = teacher_directory(config), teacher_identity(config)
    model = _new_model(place, config.teacher, config.teacher.seed)
    with locked(directory, wait=True):
        _agree_on_data(directory, place.data)
        result = finished_result(directory, identity)
        if result is None:
            with recorded(directory, _names(config, "teacher", identity)):
                write_json(directory / "config.json", dataclasses.asdict(config))
                method = _task_only(place, config.teacher)
                fitted = _fit(
                    place, config.teacher, "teacher", config.teacher.seed, identity, directory, model, method, None
                )
                seconds = time.perf_counter() - start
                result = _write_result(place, "teacher", identity, directory, model, fitted, None, seconds)
        else:
            logger.info("teacher %s: reused from %s", config.teacher.name, directory)
    _load_verified(model, directory / WEIGHTS, result)
    return TrainedTeacher(model.eval().requires_grad_(False), result, directory)


def _load_verified(model: nn.Module, path: Path, result: dict[str, Any]) -> None:
    if file_sha256(path) != result["weights_sha256"]:
        raise UserError(
            f"{path}: not the weights that {RESULT} beside it speaks of; delete the folder to train it again"
        )
    load_weights(model, path)


def _prepare(config: Config) -> Workplace:
    set_backends(config.precision, config.run.threads)
    device = resolve_device(config.device)
    data = load_data(config.dataset, Path(config.data_root))
    return Workplace(
        config, data, device,
        train=device_data(data, "train", device=device),
        test=device_data(data, "test", device=device),
        validation=device_data(data, "validation", device=device) if len(data.validation_labels) else None,
    )  # fmt: skip


def _agree_on_data(directory: Path, data: LongTailData) -> None:
    """What was trained here before was trained on exactly this data, or nothing goes on."""
    path, manifest = directory / "manifest.json", data.manifest()
    if path.exists():
        check_manifest(path, manifest)
    else:
        write_manifest(path, manifest)


def _new_model(place: Workplace, network: Student, seed: int) -> nn.Module:
    """The network with its initial weights: a function of the seed alone, whatever the method adds later."""
    torch.manual_seed(seed)
    dataset = place.config.dataset
    model = build_model(
        network.name, num_classes=dataset.num_classes, in_channels=dataset.channels, pretrained=network.pretrained,
        **network.arguments,
    )  # fmt: skip
    checkpoint = getattr(network, "checkpoint", None)
    if checkpoint is not None:
        load_weights(model, Path(checkpoint))
    return model.to(place.device, memory_format=torch.channels_last)


def _new_method(place: Workplace, config: Config, model: nn.Module, teacher: TrainedTeacher | None) -> Method:
    context = _context(place, config.student, model, teacher)
    task_loss = build_task_loss(config.student.task_loss, context.class_counts)
    method = build_method(config.method_name, config.method_arguments, context, task_loss).to(place.device)
    if method.needs_teacher_statistics:
        logits = torch.cat(
            [
                _predict(place, teacher.model, batch.images).logits
                for batch in place.train.evaluation_batches(EVALUATION_BATCH)
            ]
        )
        method.prepare(logits.float(), place.train.labels)
    return method


def _task_only(place: Workplace, network: Student) -> Method:
    context = _context(place, network, None, None)
    task_loss = build_task_loss(network.task_loss, context.class_counts)
    return build_method("ce", {}, context, task_loss).to(place.device)


def _context(
    place: Workplace, network: Student, model: nn.Module | None, teacher: TrainedTeacher | None
) -> MethodContext:
    """What a method may know. Shapes come from one dry forward pass, in eval mode, so that nothing changes."""
    split = place.data.split
    images = next(place.test.evaluation_batches(2)).images
    return MethodContext(
        num_classes=place.config.dataset.num_classes,
        class_counts=torch.as_tensor(split.class_counts, device=place.device),
        groups=torch.as_tensor(split.groups, device=place.device),
        group_names=split.group_names,
        epochs=place.config.recipe_of(network).epochs,
        student=_predict(place, model, images, features=True) if model is not None else None,
        teacher=_predict(place, teacher.model, images, features=True) if teacher is not None else None,
        num_train=len(place.train),
    )


@torch.no_grad()
def _predict(place: Workplace, model: nn.Module, images: torch.Tensor, features: bool = False) -> ModelOutput:
    was_training = model.training
    model.eval()
    with autocast(place.config.precision, place.device):
        output = model(images, features=features)
    model.train(was_training)
    return output


def _fit(
    place: Workplace, network: Student, role: str, seed: int, identity: dict[str, Any], directory: Path,
    model: nn.Module, method: Method, teacher: TrainedTeacher | None,
) -> FitResult:  # fmt: skip
    config = place.config
    recipe = config.recipe_of(network)
    if getattr(network, "checkpoint", None) is not None:
        recipe = dataclasses.replace(recipe, epochs=0)  # weights from a file are used as they are
    training = Training(
        label=f"{role} {network.name}", identity=digest(identity), model=model, method=method,
        teacher=teacher.model if teacher else None, train=place.train, test=place.test, validation=place.validation,
        split=place.data.split, groups=torch.as_tensor(place.data.split.groups, device=place.device), recipe=recipe,
        seed=seed, device=place.device,
        autocast=functools.partial(autocast, config.precision, place.device),
        evaluate_every=config.run.evaluate_every, progress=config.run.progress,
    )  # fmt: skip
    names = _names(config, role, identity)
    with Tracker(
        directory, config.wandb, name=f"{names['label']}-s{seed}", group=f"{names['label']}-{names['cell']}",
        job_type=role, tags=[names["dataset"], names["method"], config.study], config=dataclasses.asdict(config),
        run_id=names["hash"],
    ) as tracker:  # fmt: skip
        fitted = fit(training, directory, tracker)
        tracker.summarize({"accuracy": _accuracy(fitted), "train_seconds": fitted.train_seconds})
    return fitted


def _names(config: Config, role: str, identity: dict[str, Any]) -> dict[str, Any]:
    """How a run is called in its status, its result and W&B. A cell is all runs that differ in seeds alone."""
    label = dataset_label(config.dataset)
    teacher = config.teacher.name if config.needs_teacher or role == "teacher" else None
    student, method = (config.student.name, config.method_name) if role == "student" else (None, "teacher")
    return {
        "role": role, "study": config.study, "dataset": label, "teacher": teacher, "student": student, "method": method,
        "label": "-".join(filter(None, [label, teacher, student, method])).replace("/", "_"),
        "hash": digest(identity), "cell": digest(_without_seeds(identity)),
        "seed": identity.get("seed"), "split_seed": config.dataset.split_seed,
    }  # fmt: skip


def _without_seeds(identity: dict[str, Any]) -> dict[str, Any]:
    teacher = identity.get("teacher")
    if teacher is not None:
        identity = identity | {"teacher": _without_seeds(teacher)}
    return {key: value for key, value in identity.items() if key != "seed"}


def _write_result(
    place: Workplace, role: str, identity: dict[str, Any], directory: Path, model: nn.Module, fitted: FitResult,
    teacher: TrainedTeacher | None, wall_seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """weights.safetensors, then result.json: who finds the result finds everything."""
    config, dataset = place.config, place.config.dataset
    save_weights(model, directory / WEIGHTS, {"identity": digest(identity), "role": role})
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    result = {
        "schema_version": SCHEMA_VERSION,
        **_names(config, role, identity),
        "accuracy": _accuracy(fitted),
        "group_names": place.data.split.group_names,
        "class_counts": place.data.split.class_counts.tolist(),
        "groups": place.data.split.groups.tolist(),
        "split_sha256": place.data.split.sha256,
        "teacher_result": None if teacher is None else {
            "hash": teacher.result["hash"], "seed": teacher.result["seed"], "directory": str(teacher.directory),
            "accuracy": teacher.result["accuracy"], "parameters": teacher.result["parameters"],
        },
        "directory": str(directory),
        "parameters": count_parameters(model),
        "multiply_adds": count_multiply_adds(model, shape),
        "wall_seconds": wall_seconds,  # of this process; train_seconds is of all, with interruptions
        "train_seconds": fitted.train_seconds,
        "images_per_second": fitted.images_per_second,
        "device": _device_name(place.device),
        "threads": torch.get_num_threads(),
        "versions": {
            "ltkd": ltkd.__version__, "python": platform.python_version(), "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
        "git": _git(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights_sha256": file_sha256(directory / WEIGHTS),
        "identity": identity,
        "evaluate_every": config.run.evaluate_every,
    }  # fmt: skip
    write_json(directory / RESULT, result)
    (directory / CHECKPOINT).unlink(missing_ok=True)  # the state to resume from has served; the weights stay
    return result


def _accuracy(fitted: FitResult) -> dict[str, Any]:
    return {
        "last": fitted.last,  # the headline
        "best": fitted.best,  # best epoch ON THE TEST PART: only for comparison with papers that report it
        "selected": fitted.selected,  # best epoch on the validation split, where there is one
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def _git() -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return None
