"""Every training command of README and docs composes to a valid configuration."""

import re
import shlex

import pytest

from ltkd.config.compose import compose_values
from ltkd.config.load import load_config

from ..conftest import PROJECT
from ..data.pictures import write

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^ {4}(?:python|torchrun .*) src/train\.py(.*)$", re.MULTILINE)
# no overrides; a pack is opened for its settings; tests/test_adding.py adds the method and the data set first
LEFT_OUT = {"...", "--help", "--list", "dataset=pack", "method=logit_mse", "dataset=my_images"}


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


def write_files(root, test_share):
    """The files that the commands name; with a share for testing the folder has no test part."""
    for part in ("train", "test"):
        (root / f"{part}.txt").write_text("a.png 0\nb.png 1\n")
    for name in ("a", "b"):
        write(root / f"FOLDER/{name}.png", 0)
        for part in ("train", "test") if not test_share else (".",):
            write(root / f"FOLDER/{part}/{name}/0.png", 0)


@pytest.mark.parametrize("words", commands().values(), ids=list(commands()))
def test_command_composes(words, tmp_path, monkeypatch):
    write_files(tmp_path, any("test_share" in word for word in words))
    monkeypatch.chdir(tmp_path)
    load_config(compose_values("wandb.mode=disabled", *overrides(words)))
