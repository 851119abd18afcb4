"""Every command of README and docs has the options of its script and composes to a valid configuration."""

import importlib.util
import re
import shlex

import pytest

from ltkd.config.compose import compose_values
from ltkd.config.load import load_config
from ltkd.tables.file import load_table

from ..conftest import PROJECT
from ..data.pictures import write

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^ {4}(?:python|torchrun .*) src/train\.py(.*)$", re.MULTILINE)
SCRIPT = re.compile(r"^ {4}(?:until )?python scripts/(\w+)\.py([^;\n]*)", re.MULTILINE)
# no overrides; a pack is opened for its settings; tests/test_adding.py adds the method and the data set first
LEFT_OUT = {"...", "--help", "--list", "dataset=pack", "method=scaled_mse", "dataset=my_images"}


def commands():
    found = {}
    for page in PAGES:
        for arguments in COMMAND.findall(page.read_text(encoding="utf-8")):
            words = shlex.split(arguments, comments=True)
            if not LEFT_OUT & set(words):
                found[shlex.join(words)] = words
    return found


def script_commands():
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    found = [
        (name, shlex.split(arguments, comments=True)) for text in texts for name, arguments in SCRIPT.findall(text)
    ]
    return {f"{name} {shlex.join(words)}": (name, words) for name, words in found if words}


def parser_of(name):
    """The parser of a script: its own, or that of the command that it starts."""
    path = PROJECT / "scripts" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(f"page_{name}", path)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    return getattr(script, "PARSER", None) or importlib.import_module(f"ltkd.commands.{name}").PARSER


def overrides(words):
    """The overrides of the first job of a command; options of Hydra and its launcher are not the configuration's."""
    if "-m" in words:
        words = first_values(words)
    flags = {"-m", "--cfg", "--resolve", "job"}
    return [word for word in words if word not in flags and not word.startswith("hydra")]


def first_values(words):
    """The first job of a grid."""
    return [word.partition(",")[0] if not re.search(r"[\[{]", word) else word for word in words]


def test_the_pages_have_commands():
    assert len(commands()) > 10
    assert len(script_commands()) > 20


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


@pytest.mark.parametrize(("name", "words"), script_commands().values(), ids=list(script_commands()))
def test_script_has_the_options_and_composes(name, words, tmp_path, monkeypatch):
    options, settings = parser_of(name).split(words)
    if getattr(options, "table", None):
        load_table(options.table)
    settings = ["dataset.path=FOLDER" if "dataset.path=" in word else word for word in first_values(settings)]
    write_files(tmp_path, test_share=False)
    monkeypatch.chdir(tmp_path)
    if settings and "=" in settings[0] and not LEFT_OUT & set(settings):  # else they are images
        load_config(compose_values("wandb.mode=disabled", *settings))
