"""Overrides that Hydra cannot read are told with the way to write them; ~ stands for the home folder in every path."""

import shlex

import pytest

from ltkd.config.compose import compose_values
from ltkd.config.load import load_config
from ltkd.config.overrides import check_grammar
from ltkd.errors import UserError


@pytest.mark.parametrize("path", ["a=b c~.ltpack", "~/x.ltpack", "/my (1)/x", 'it"s=1'])
def test_the_way_to_write_a_path_that_needs_quotes_is_one_that_works(path):
    with pytest.raises(UserError, match="stands in quotes") as told:
        check_grammar(["method=kd", f"output_root={path}"])
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
