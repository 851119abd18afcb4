"""Composing is Hydra's; overrides that it cannot read are told with the way to write them; ~ is the home folder."""

import shlex

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ltkd.config.compose import CONFIGURATION, compose_values, parse_overrides
from ltkd.config.load import load_config
from ltkd.errors import UserError


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3", "recipe.epochs=5", "method=kd", "method.temperature=2", "recipe.epochs=7"],
        ["experiment=cifar100_lt_cpu", "wandb.tags=[mine]", "teacher=resnet56"],
        ["+student.recipe.epochs=9", "+student.recipe.batch_size=5", "student.recipe.epochs=4", "method=crd"],
        ["+teacher.arguments.a=1", "teacher.arguments={a: 2}", "method={name: kd}", "method.name=dkd"],
        ["~wandb.tags", "recipe.epochs=${seed}", "++seed=4", "recipe=mdistiller", "hydra.job.name=x", "seed=6"],
    ],
)
def test_what_is_composed_is_what_hydra_composes(overrides):
    """The second time too, and after another composition of the same files: none changes what is kept."""
    for given in (overrides, [*overrides, "seed=8"], overrides):
        with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
            expected = OmegaConf.to_container(compose("config", given), resolve=True)
        assert compose_values(*given) == expected


def test_a_composition_that_was_refused_is_refused_again_in_hydras_words():
    for _ in range(2):
        with pytest.raises(UserError, match=r"recipe.epoch: unknown key \(did you mean 'epochs'\?\).*\+recipe.epoch="):
            compose_values("recipe.epoch=3")


@pytest.mark.parametrize("override", ["experiment=null", "student=3", "method=true"])
def test_a_choice_that_is_no_name_is_told_with_the_names(override):
    group = override.partition("=")[0]
    names = ", ".join(sorted(file.stem for file in (CONFIGURATION / group).glob("*.yaml")))
    with pytest.raises(UserError) as told:
        compose_values(override)
    assert str(told.value) == f"{override}: {group} is one of: {names}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset=image_folder", "dataset.path: missing; add dataset.path=..."),  # two keys interpolate it
        ("dataset=image_list", "dataset.path: missing; add dataset.path=..."),
        ("method=kd,dkd", "method=kd,dkd: several values; add -m to run each, or write a list as [a,b] and"),
        ("kd", "kd: should be KEY=VALUE, such as method=kd"),
        ("table=digits_methods", "table=digits_methods: belongs to scripts/reproduce.py and scripts/report.py"),
    ],
)
def test_a_newcomers_mistakes_are_told_with_what_to_type(override, message):
    with pytest.raises(UserError) as told:
        compose_values(override)
    assert str(told.value).startswith(message)


@pytest.mark.parametrize("path", ["a=b c~.ltpack", "~/x.ltpack", "/my (1)/x", 'it"s=1'])
def test_the_way_to_write_a_path_that_needs_quotes_is_one_that_works(path):
    with pytest.raises(UserError, match="stands in quotes") as told:
        parse_overrides(["method=kd", f"output_root={path}"])
    [written] = shlex.split(str(told.value).partition("protect: ")[2])
    assert compose_values(written)["output_root"] == path


def test_what_is_no_text_gets_no_advice_on_quotes():
    with pytest.raises(UserError) as told:
        compose_values("dataset.mean=[0.5")
    assert "quotes" not in str(told.value)


def test_the_home_folder_is_written_out_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").write_bytes(b"any")
    network = ["student=timm", "student.name=timm/resnet10t", '+student.arguments.checkpoint_path="~/w.pth"']
    paths = [
        f'{key}="~/{name}"' for key, name in (("output_root", "o"), ("data_root", "d"), ("teacher.checkpoint", "w.pth"))
    ]
    config = load_config(compose_values("method=kd", *network, *paths))
    home = str(tmp_path)
    assert (config.output_root, config.data_root) == (f"{home}/o", f"{home}/d")
    assert config.teacher.checkpoint == config.student.arguments["checkpoint_path"] == f"{home}/w.pth"
