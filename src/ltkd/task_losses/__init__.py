"""The task losses on the labels, by name."""

from ltkd.task_losses import long_tail  # noqa: F401  importing the file registers its losses
from ltkd.task_losses.base import TaskLoss, build_task_loss, list_task_losses, register_task_loss, task_loss_class

__all__ = ["TaskLoss", "build_task_loss", "list_task_losses", "register_task_loss", "task_loss_class"]
