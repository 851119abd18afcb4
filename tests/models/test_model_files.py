from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ltkd.config.compose import compose_values
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.loop.schedule import learning_rate
from ltkd.models import build_model, list_models

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_every_own_network_has_a_file(role):
    names = {path.stem for path in (PROJECT / "conf" / role).glob("*.yaml")}
    assert names == {*list_models(), "timm", "torchvision"}


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_files_name_their_networks(role):
    for stem in list_models():
        assert OmegaConf.load(PROJECT / "conf" / role / f"{stem}.yaml").name == stem


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_files_of_the_libraries_name_networks_that_build(library):
    for role in ("teacher", "student"):
        name = OmegaConf.load(PROJECT / "conf" / role / f"{library}.yaml").name
        assert name.startswith(f"{library}/")
        build_model(name, 100)


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("network", ["mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_mobile_networks_have_their_own_rate_in_one_recipe(role, network):
    def rates(*overrides):
        config = load_config(compose_values(f"{role}={network}", *overrides))
        return [config.recipe_of(config.teacher).learning_rate, config.recipe_of(config.student).learning_rate]

    own, other = (0, 1) if role == "teacher" else (1, 0)
    rate = rates("recipe=mdistiller")
    assert (rate[own], rate[other]) == (0.01, 0.05)
    assert rates("recipe=mdistiller", f"{role}.recipe.learning_rate=0.02")[own] == 0.02
    assert rates("recipe=mdistiller", "recipe.learning_rate=0.1") == ([0.02, 0.1] if own == 0 else [0.1, 0.02])
    assert rates("recipe.learning_rate=0.1", f"{role}.recipe.learning_rate=0.03")[own] == 0.03
    assert rates("recipe=imagenet") == [0.2, 0.2]
    assert rates("recipe=ldam", "recipe.learning_rate=0.3", f"+{role}.recipe.epochs=3") == [0.3, 0.3]


def test_a_rate_that_is_the_recipes_makes_the_same_run():
    one = student_run(load_config(compose_values("student=mobilenetv2")))
    other = student_run(load_config(compose_values("student=resnet8", "student.name=mobilenetv2")))
    assert one.hash == other.hash


def test_the_imagenet_recipe_is_the_fields():
    recipe = load_config(compose_values("recipe=imagenet")).recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.weight_decay) == (100, 512, 0.2, 1e-4)
    rates = [learning_rate(recipe, epoch) for epoch in (1, 30, 31, 60, 61, 90, 91, 100)]
    assert rates == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002])
