"""Settings of a class: inherited, overridden, fixed, checked, copied."""

import copy
import inspect
import pickle
from typing import Annotated, ClassVar

import pytest
import torch
from annotated_types import Gt
from torch import nn

from ltkd.config.bind import bind
from ltkd.settings import Settings


class Layer(Settings, nn.Module):
    weight: Annotated[float, Gt(0)]
    scale: float = 2.0
    kind: ClassVar[str] = "layer"

    def __init__(self, width: int, **settings) -> None:
        super().__init__(**settings)
        self.inner = nn.Linear(width, width)


class Other(Settings):
    """A second base, whose settings are added."""

    extra: int = 1


class Narrow(Layer):
    scale: "int"  # annotated again, as a text, and without the default


class Fixed(Layer, Other):
    scale: ClassVar[float] = 3.0


def names(cls):
    return list(inspect.signature(cls).parameters)


def test_settings_are_keywords_and_attributes():
    layer = Layer(4, weight=0.5)
    assert (layer.weight, layer.scale) == (0.5, 2.0)
    assert layer.inner.in_features == 4
    assert names(Layer) == ["width", "weight", "scale"]
    assert not any(hasattr(Layer, name) for name in ("weight", "inner"))


def test_a_subclass_inherits_overrides_and_fixes():
    assert Narrow(1, weight=1.0, scale=5).scale == 5
    assert Narrow.settings["scale"].default is inspect.Parameter.empty
    assert Narrow.settings["scale"].annotation is int
    assert names(Fixed) == ["width", "extra", "weight"]
    assert Fixed(1, weight=1.0).scale == 3.0
    assert names(Layer) == ["width", "weight", "scale"]  # the base stays as it was


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (Layer, {}, "missing a required argument: 'weight'"),
        (Layer, {"weight": 1.0, "wieght": 1.0}, "unexpected keyword argument 'wieght'"),
        (Fixed, {"weight": 1.0, "scale": 1.0}, "unexpected keyword argument 'scale'"),
    ],
)
def test_missing_and_unknown_settings_are_refused(cls, values, message):
    with pytest.raises(TypeError, match=message):
        cls(1, **values)


@pytest.mark.parametrize(
    ("values", "errors"),
    [
        ({"weight": 1.0}, []),
        ({"weight": 0.0}, ["part.weight: should be greater than 0, got 0.0"]),
        ({"scale": "a"}, ["part.scale: should be a valid number, got 'a'", "part.weight: missing"]),
        ({"weight": 1.0, "skale": 1}, ["part.skale: unknown key (did you mean 'scale'?); known: scale, weight"]),
    ],
)
def test_a_configuration_is_checked_against_the_annotations(values, errors):
    found = []
    assert bind(Layer, values, "part", found, given=1).keys() <= {"weight", "scale"}
    assert found == errors


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_keep_settings_and_parameters(copied):
    layer = Fixed(3, weight=0.5, extra=7)
    other = copied(layer)
    assert (other.weight, other.scale, other.extra) == (0.5, 3.0, 7)
    assert other.inner is not layer.inner
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), other.parameters(), strict=True))
