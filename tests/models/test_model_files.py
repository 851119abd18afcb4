from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ltkd.models import build_model, count_multiply_adds, count_parameters, list_models

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_every_own_network_has_a_file(role):
    names = {path.stem for path in (PROJECT / "conf" / role).glob("*.yaml")}
    assert names == {*list_models(), "timm", "torchvision"}


@pytest.mark.parametrize("stem", [*list_models(), "timm", "torchvision"])
def test_files_name_networks_that_build_with_the_sizes_they_state(stem):
    for role in ("teacher", "student"):
        path = PROJECT / "conf" / role / f"{stem}.yaml"
        name = OmegaConf.load(path).name
        model = build_model(name, 100)
        if name == stem:
            size = f"{count_parameters(model):,} parameters, {count_multiply_adds(model, (3, 32, 32)) / 1e6:.1f} M"
            assert size in path.read_text()
        else:
            assert name.startswith(f"{stem}/")
