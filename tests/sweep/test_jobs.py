"""Expanding a grid and checking all of it before anything runs."""

import pytest

from ltkd.errors import UserError
from ltkd.sweep import check_jobs, expand_overrides


def test_a_grid_is_expanded_as_hydra_does():
    assert expand_overrides(["method=ce,kd", "recipe.epochs=2", "seed=range(0,2)"]) == [
        ["method=ce", "recipe.epochs=2", "seed=0"],
        ["method=ce", "recipe.epochs=2", "seed=1"],
        ["method=kd", "recipe.epochs=2", "seed=0"],
        ["method=kd", "recipe.epochs=2", "seed=1"],
    ]
    assert expand_overrides([]) == [[]]
    # commas in a list or a mapping are no choices
    listed = ["wandb.tags=[a,b]", "teacher.task_loss={name: logit_adjusted, tau: 1.5}"]
    assert len(expand_overrides(listed)) == 1
    assert [job[0] for job in expand_overrides(["method=glob([kd,lt*])"])] == ["method=kd", "method=ltkd"]
    check_jobs(expand_overrides([*listed, "seed=3"]))


def test_what_hydra_cannot_parse_is_a_user_error():
    with pytest.raises(UserError, match="no viable alternative"):
        expand_overrides(["seed=["])


def test_every_wrong_job_is_named_and_each_message_once():
    jobs = expand_overrides(["method=ce,kd", "seed=0,1,2", "student.name=resnet9,resnet8", "study=a"])
    with pytest.raises(UserError) as caught:
        check_jobs([*jobs, ["study=a", "method=kd", "method.temperature=0"], ["study=a", "method=unheard_of"]])
    lines = str(caught.value).splitlines()
    assert lines[0] == "nothing was run:"
    assert lines[1].startswith("  method=ce seed=0 student.name=resnet9 (and 5 more): student.name: ")
    assert str(caught.value).count("resnet9'") == 1
    assert any(line.startswith("  method=kd method.temperature=0: method.temperature: should be") for line in lines)
    assert any("unknown name 'unheard_of'" in line for line in lines)
    with pytest.raises(UserError, match=r"^nothing was run: method=unheard_of: [^\n]*$"):
        check_jobs([["method=ce"], ["method=unheard_of"]])


def test_a_job_knows_its_run_and_its_teachers():
    with_teacher, without = check_jobs([["method=kd", "teacher=resnet8", "seed=5"], ["method=ce", "teacher=resnet8"]])
    assert with_teacher.run.seed == 5
    assert [teacher.network.name for teacher in with_teacher.teachers] == ["resnet8"]
    assert without.teachers == []
    assert (with_teacher.label, without.label) == ("method=kd seed=5", "method=ce")
