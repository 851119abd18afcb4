"""Refuses what several processes cannot do together, before anything is read or trained."""

import logging

from torch import nn

from ltkd.config.schema import Config, Recipe
from ltkd.data import DeviceData
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
        needed = 2 * ranks.size * recipe.accumulation
        if recipe.batch_size < needed:
            where = "of a batch each"
            if recipe.accumulation > 1:
                where = f"each in all {recipe.accumulation} parts of a batch (recipe.accumulation)"
            raise UserError(
                f"recipe.batch_size: {ranks.size} processes need at least two images {where}, {needed}, got "
                f"{recipe.batch_size}; start fewer"
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
    ranks: Ranks, train: DeviceData, recipe: Recipe, *modules: nn.Module
) -> tuple[nn.Module, ...]:
    """Give modules batch normalisation over the images of all processes, which has the same parameters and buffers.

    One process has that already. UserError where a short last batch has no images for some process.
    """
    if ranks.alone:
        return modules
    steps = train.in_parts(recipe.accumulation).steps(recipe.batch_size)
    images = min(share.total for share in steps.shares(len(steps) - 1))
    if images < 2 * ranks.size:
        what = "batch" if recipe.accumulation == 1 else f"batch's smallest of {recipe.accumulation} parts"
        raise UserError(
            f"precision.sync_batch_norm: the last {what} has {images} images, and each of {ranks.size} processes needs "
            "two; choose another recipe.batch_size or fewer processes"
        )
    return tuple(nn.SyncBatchNorm.convert_sync_batchnorm(module) for module in modules)
