"""The optimizers that recipe.optimizer chooses from, by name."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Ge, Lt
from torch.optim import SGD, AdamW, Optimizer

from ltkd.choices import look_up, name_and_settings
from ltkd.ranges import Positive

Groups = list[dict[str, Any]]


class Recipe(Protocol):
    """The part of a recipe (ltkd.config.schema.Recipe) that optimizers read."""

    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    optimizer: str | dict[str, Any]


def sgd(groups: Groups, recipe: Recipe, on_gpu: bool) -> SGD:
    """Stochastic gradient descent with the recipe's momentum; weight decay is part of the gradient."""
    return SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True if on_gpu else None,  # one kernel, which reads the learning rate on the device
    )


def adamw(
    groups: Groups,
    recipe: Recipe,
    on_gpu: bool,
    *,
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999,
    epsilon: Positive = 1e-8,
) -> AdamW:
    """AdamW, arXiv:1711.05101; the recipe's momentum is its beta1, and the decay is learning rate * weight_decay."""
    return AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=(recipe.momentum, beta2),
        eps=epsilon,
        weight_decay=recipe.weight_decay,
        fused=True if on_gpu else None,
        capturable=on_gpu,
    )


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": sgd, "adamw": adamw}


def optimizer_kind(name: str) -> Callable[..., Optimizer]:
    """The function that makes the optimizer of that name. UserError if unknown."""
    return look_up("recipe.optimizer", name, OPTIMIZERS)


def build_optimizer(groups: Groups, recipe: Recipe, device: torch.device) -> Optimizer:
    """Make the recipe's optimizer of these groups of parameters."""
    name, settings = name_and_settings(recipe.optimizer)
    return optimizer_kind(name)(groups, recipe, device.type == "cuda", **settings)


def make_state(optimizer: Optimizer) -> None:
    """Make what the optimizer's first step would make, all 0, which leaves that step as it is."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if isinstance(optimizer, AdamW):
                if not state:
                    place = parameter.device if group["capturable"] else "cpu"
                    state["step"] = torch.zeros((), device=place)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            elif group["momentum"] and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def load_state(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Load a state, and keep how this device wants the steps, not the one that wrote the state."""
    pairs = zip(saved["param_groups"], optimizer.param_groups, strict=True)
    groups = [
        {**theirs, **{key: mine[key] for key in ("fused", "capturable") if key in mine}} for theirs, mine in pairs
    ]
    optimizer.load_state_dict({**saved, "param_groups": groups})
