"""Refuses what several processes cannot do together, before anything is read or trained."""

import logging

from torch import nn

from ltkd.config.schema import Config
from ltkd.data import DeviceData, build_augmentation
from ltkd.errors import UserError
from ltkd.machine import resolve_device
from ltkd.methods import method_class
from ltkd.ranks import Ranks

logger = logging.getLogger(__name__)


def check_ranks(config: Config, ranks: Ranks) -> None:
    """Raise a UserError, one line that names the key, where `config` is not for as many processes as there are."""
    if ranks.alone:
        return
    method, networks = method_class(config.method_name), [config.student]
    if config.needs_teacher:
        networks += [config.teacher, *config.extra_teachers]
    for recipe in map(config.recipe_of, networks):
        if recipe.batch_size < 2 * ranks.size:
            raise UserError(
                f"recipe.batch_size: {ranks.size} processes need at least two images of a batch each, "
                f"{2 * ranks.size}, got {recipe.batch_size}; start fewer"
            )
        if recipe.accumulation > 1:
            raise UserError(
                "recipe.accumulation: several processes split the batch already; set it to 1, or start more of them"
            )
        if build_augmentation(recipe.augmentation).mixing:
            raise UserError(
                f"recipe.augmentation: {recipe.augmentation} mixes neighbours of a batch, which several processes "
                "share; leave mixup and cutmix out, or start one process"
            )
    if config.precision.sync_batch_norm and resolve_device(config.device).type != "cuda":
        raise UserError("precision.sync_batch_norm: torch has it for GPUs alone; leave it at false on a CPU")
    if method.one_process:
        raise UserError(
            f"method.name: {config.method_name} cannot be trained by several processes, {method.one_process}; start one"
        )
    if config.run.step in ("graph", "compile"):
        raise UserError(
            f"run.step: {config.run.step} is for one process, several exchange gradients in each step; choose auto or "
            "eager"
        )
    logger.info("%d processes share each batch", ranks.size)


def synchronize_batch_norm(
    ranks: Ranks, train: DeviceData, batch_size: int, *modules: nn.Module
) -> tuple[nn.Module, ...]:
    """Give modules batch normalisation over the images of all processes, which has the same parameters and buffers.

    One process has that already. UserError where a short last batch has no images for some process.
    """
    if ranks.alone:
        return modules
    last = train.step_slice(train.num_batches(batch_size) - 1, batch_size)
    if last.stop - last.start < 2 * ranks.size:
        raise UserError(
            f"precision.sync_batch_norm: the last batch has {last.stop - last.start} images, and each of "
            f"{ranks.size} processes needs two; choose another recipe.batch_size or fewer processes"
        )
    return tuple(nn.SyncBatchNorm.convert_sync_batchnorm(module) for module in modules)
