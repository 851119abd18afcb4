"""The page's instructions for a new method and a new data set, followed to the letter in a copy of the project."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ltkd.data import load_source

from .conftest import PROJECT

BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^ {4}python src/train\.py (.*)$", re.MULTILINE)


def section(title):
    """The files {path: text} and the overrides of the command that a section of the page names."""
    (text,) = re.findall(
        rf"^## {title}\n(.*?)^## ", f"{(PROJECT / 'docs' / 'adding.md').read_text()}\n## ", re.MULTILINE | re.DOTALL
    )
    (command,) = COMMAND.findall(text)
    return dict(BLOCK.findall(text)), shlex.split(command, comments=True)


def write_images(folder):
    """Digits as the page's data set has them: 32x32 and RGB."""
    digits = load_source("digits", folder)
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        images = getattr(digits, f"{part}_images").repeat(3, axis=1).repeat(4, axis=2).repeat(4, axis=3)
        np.savez(folder / f"{part}.npz", images=images, labels=getattr(digits, f"{part}_labels"))


@pytest.fixture
def copy(tmp_path):
    built = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("src", "conf"):  # src has a link to conf
        shutil.copytree(PROJECT / folder, tmp_path / folder, symlinks=True, ignore=built)
    return tmp_path


def test_the_pages_method_and_data_set_train(copy):
    method, of_method = section("A method")
    dataset, of_dataset = section("A data set")
    assert method.keys() == {
        "src/ltkd/methods/scaled_mse.py", "conf/method/scaled_mse.yaml", "src/ltkd/losses/scaled_mse.py",
    }  # fmt: skip
    assert dataset.keys() == {"src/ltkd/data/my_images.py", "conf/dataset/my_images.yaml"}
    for path, text in (method | dataset).items():
        assert not (copy / path).exists()
        (copy / path).write_text(text)
    write_images(copy / "data" / "my_images")
    short = ["recipe.epochs=1", "recipe.warmup_epochs=0", "teacher=resnet8", "run.threads=1", "device=cpu",
             "wandb.mode=disabled"]  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "src/train.py", *of_method, *of_dataset, *short, "data_root=data", "output_root=outputs"],
        cwd=copy, env={"PYTHONPATH": str(copy / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    (path,) = (copy / "outputs" / "main").rglob("result.json")
    result = json.loads(path.read_text())
    assert (result["method"], result["dataset"]) == ("scaled_mse", "my_images-if20")
    (metrics,) = (copy / "outputs" / "main").rglob("metrics.jsonl")
    terms = [json.loads(line) for line in metrics.read_text().splitlines()][-1]
    assert terms["train/loss/mse"] > 0
