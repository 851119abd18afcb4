"""Learning rates against the published recipes."""

import pytest

from ltkd.config.load import load_config
from ltkd.loop.schedule import learning_rate

from ..conftest import compose_values


def rates(recipe, *overrides):
    recipe = load_config(compose_values(f"recipe={recipe}", *overrides)).recipe
    return {epoch: learning_rate(recipe, epoch) for epoch in range(1, recipe.epochs + 1)}


def test_mdistiller_drops_after_150_180_and_210():
    lr = rates("mdistiller")
    assert [lr[e] for e in (1, 150, 151, 180, 181, 210, 211, 240)] == pytest.approx(
        [0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005, 0.00005, 0.00005]
    )


def test_milestones_scale_with_the_number_of_epochs():
    lr = rates("mdistiller", "recipe.epochs=24")
    assert [e for e in range(2, 25) if lr[e] != lr[e - 1]] == [16, 19, 22]


def test_ldam_warms_up_linearly_and_drops_after_160_and_180():
    lr = rates("ldam")
    assert [lr[e] for e in (1, 2, 5, 6, 160, 161, 180, 181)] == pytest.approx(
        [0.02, 0.04, 0.1, 0.1, 0.1, 0.001, 0.001, 0.00001]
    )


def test_cosine_falls_from_the_base_rate_without_reaching_zero():
    lr = rates("quick")
    after_warm_up = [lr[e] for e in range(4, 61)]
    assert after_warm_up[0] == 0.05
    assert after_warm_up == sorted(after_warm_up, reverse=True)
    assert 0 < after_warm_up[-1] < 0.001
