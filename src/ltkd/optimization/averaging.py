"""The average of a network's weights along its training, which is evaluated and deployed: recipe.average."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from ltkd.choices import look_up, name_and_settings


class LatestWeights:
    """No average: the weights of the latest step are the network's."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def update(self) -> None:
        """Take a step of the optimizer into account."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the network's averaged weights in it for a while."""
        yield

    def deploy(self) -> None:
        """Put the averaged weights into the network for good."""

    def tensors(self) -> list[Tensor]:
        """Return all tensors that `update` changes."""
        return []

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""


class ExponentialAverage(LatestWeights):
    """Exponential moving average (EMA) of parameters and of the statistics of batch normalisation.

        average <- d * average + (1 - d) * latest, d = min(decay, (1 + t) / (10 + t)) after step t = 1, 2, ...

    The smaller d of the first steps forgets the initial weights, whatever the length of the training.
    Polyak, Juditsky: Acceleration of Stochastic Approximation by Averaging (1992); the warm-up is TensorFlow's.
    """

    def __init__(self, model: nn.Module, *, decay: Annotated[float, Ge(0), Lt(1)] = 0.999) -> None:
        super().__init__(model)
        self.decay = decay
        self._averages = {name: tensor.detach().clone() for name, tensor in self._latest().items()}
        device = next(iter(self._averages.values())).device
        self._averages["steps"] = self._steps = torch.zeros((), device=device)

    @torch.no_grad()
    def update(self) -> None:
        self._steps.add_(1)
        share = 1 - ((1 + self._steps) / (10 + self._steps)).clamp(max=self.decay)  # on the device, for a CUDA graph
        for name, latest in self._latest().items():
            self._averages[name].lerp_(latest, share.to(latest.dtype))

    @contextmanager
    def applied(self) -> Iterator[None]:
        latest = {name: tensor.detach().clone() for name, tensor in self._latest().items()}
        self.deploy()
        try:
            yield
        finally:
            self._copy(latest)

    def deploy(self) -> None:
        self._copy(self._averages)

    def tensors(self) -> list[Tensor]:
        return list(self._averages.values())

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._averages)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self._averages.items():
            tensor.copy_(state[name])

    def _latest(self) -> dict[str, Tensor]:
        """The network's own floating-point tensors by name."""
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, tensor in self._latest().items():
            tensor.copy_(values[name])


AVERAGES: dict[str, Callable[..., LatestWeights]] = {"none": LatestWeights, "ema": ExponentialAverage}


def average_kind(name: str) -> Callable[..., LatestWeights]:
    """The class of that name. UserError if unknown."""
    return look_up("recipe.average", name, AVERAGES)


def build_average(model: nn.Module, choice: str | Mapping[str, Any]) -> LatestWeights:
    """Make an average of the network's weights, which begins with what they are now.

    choice: recipe.average, a name or {name: ..., its settings}.
    """
    name, settings = name_and_settings(choice)
    return average_kind(name)(model, **settings)
