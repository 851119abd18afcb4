"""Every training command of README and docs composes to a valid configuration."""

import re
import shlex

import pytest

from ltkd.config.compose import compose_values
from ltkd.config.load import load_config

from ..conftest import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^ {4}python src/train\.py(.*)$", re.MULTILINE)
# no overrides; a pack is opened for its settings; tests/test_adding.py adds the method and the data set first
LEFT_OUT = {"--help", "--list", "dataset=pack", "method=logit_mse", "dataset=my_images"}


def commands():
    found = {}
    for page in PAGES:
        for arguments in COMMAND.findall(page.read_text(encoding="utf-8")):
            words = shlex.split(arguments, comments=True)
            if not LEFT_OUT & set(words):
                found[shlex.join(words)] = words
    return found


def overrides(words):
    """The overrides of the first job of a command; options of Hydra and its launcher are not the configuration's."""
    if "-m" in words:
        words = [word.partition(",")[0] if not re.search(r"[\[{]", word) else word for word in words]
    flags = {"-m", "--cfg", "--resolve", "job"}
    return [word for word in words if word not in flags and not word.startswith("hydra")]


def test_the_pages_have_commands():
    assert len(commands()) > 10


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A current folder with the files that the commands name."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text("a.png 0\nb.png 1\n")
        for label in "ab":
            (tmp_path / "FOLDER" / name / label).mkdir(parents=True)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("words", commands().values(), ids=list(commands()))
def test_command_composes(words):
    load_config(compose_values("wandb.mode=disabled", *overrides(words)))
