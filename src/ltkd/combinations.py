"""Settings that are right each by itself and do not go together: said before anything is trained."""

import logging
from typing import TYPE_CHECKING, Any

from ltkd.methods import method_class, task_loss_class

if TYPE_CHECKING:
    from ltkd.config import Config

logger = logging.getLogger(__name__)


def warn_of_combinations(config: "Config") -> None:
    """A warning for each pair of settings of a valid configuration that hardly anyone means."""
    networks = {"student": config.student} | ({"teacher": config.teacher} if config.needs_teacher else {})
    for role, network in networks.items():
        name = _name(network.task_loss)
        task_loss, sampling = task_loss_class(name), _name(config.recipe_of(network).sampling)
        if config.needs_teacher and not task_loss.softmax_logits:
            logger.warning(
                "%s.task_loss=%s trains sigmoids, but distillation reads a softmax of its logits", role, name
            )
        if task_loss.corrects_prior and sampling != "instance":
            logger.warning(
                "%s.task_loss=%s corrects for the class counts and recipe.sampling=%s evens the classes out: "
                "together they favour rare classes",
                role, name, sampling,
            )  # fmt: skip
    made_for = method_class(config.method_name).made_for_task_losses
    if any(_name(networks[role].task_loss) != name for role, name in made_for.items()):
        choices = " ".join(f"{role}.task_loss={name}" for role, name in made_for.items())
        logger.warning("method=%s is made for %s; elsewhere it is another method", config.method_name, choices)
    if config.method.get("task_weight") == 0 and config.student.task_loss != "ce":
        logger.warning("student.task_loss has no effect with method.task_weight=0")


def _name(choice: str | dict[str, Any]) -> str:
    return choice if isinstance(choice, str) else choice["name"]
