"""A run of before a part of its identity was added is found again under today's hash."""

import json

from scripts.migrate import main

from ltkd.commands.migrate import find_moves
from ltkd.config.identity import digest, student_run, teacher_run, without_seeds
from ltkd.data import load_data, write_pack
from ltkd.files import read_json, write_json
from ltkd.runs.run import run_experiment


def without_content(value):
    if not isinstance(value, dict):
        return value
    return {key: without_content(inner) for key, inner in value.items() if key != "content"}


def as_before(run, identity_of=without_content):
    """Rewrites a finished run as it was under an identity of before: when that did not have the content of a pack."""
    result = read_json(run.files.result)
    identity = identity_of(result["identity"])
    cell = digest({**without_seeds(identity), "evaluate_every": result["evaluate_every"]})
    changed = {"identity": identity, "hash": digest(identity), "cell": cell}
    write_json(run.files.result, result | changed)
    manifest = read_json(run.files.manifest)
    write_json(run.files.manifest, manifest | {"settings": without_content(manifest["settings"])})
    config = read_json(run.files.config)
    write_json(run.files.config, config | {"dataset": without_content(config["dataset"])})
    old = run.directory.with_name(f"s{run.seed}-{changed['hash']}")
    run.directory.rename(old)
    return old


def test_runs_on_a_pack_of_before_are_moved_and_found(make_config, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    pack = tmp_path / "digits.ltpack"
    write_pack(pack, load_data(make_config().dataset, tmp_path))
    config = make_config("method=kd", "dataset=pack", f"dataset.path={pack}", "recipe.epochs=1")
    result = run_experiment(config)
    runs = [student_run(config), teacher_run(config)]
    plain = make_config("method=ce", "recipe.epochs=0")
    run_experiment(plain)
    outputs = tmp_path / "outputs"
    assert not list(find_moves(outputs))
    old = [as_before(run) for run in runs]

    moves = {one.files.folder: one for one in find_moves(outputs)}
    assert {folder: one.run.hash for folder, one in moves.items()} == dict(
        zip(old, [run.hash for run in runs], strict=True)
    )
    assert not any(one.reason for one in moves.values())
    assert main([str(outputs), "--write"]) == 0
    assert capsys.readouterr().out.endswith("2 moved, 0 stay as they are, all others have today's hash\n")
    assert not list(find_moves(outputs))
    caplog.clear()
    found = run_experiment(config)
    assert "finished before, skipped" in caplog.text
    assert {**found, "finished": 0} == {**result, "finished": 0}
    assert json.loads(runs[1].files.result.read_text())["hash"] == runs[1].hash


def with_groups(identity, policy):
    """An identity of before, which had the groups of the data set wherever it had the data set."""
    if not isinstance(identity, dict):
        return identity
    return {
        key: value | {"groups": policy} if key == "dataset" else with_groups(value, policy)
        for key, value in identity.items()
    }


def test_runs_for_other_groups_of_before_are_moved_and_say_which_groups_they_have(make_config, tmp_path, caplog):
    caplog.set_level("INFO")
    others = make_config("method=kd", "dataset.groups=oltr", "recipe.epochs=1")
    result = run_experiment(others)
    old = [as_before(run, lambda one: with_groups(one, "oltr")) for run in (student_run(others), teacher_run(others))]
    for folder in old:
        told = read_json(folder / "result.json")
        write_json(folder / "result.json", {k: v for k, v in told.items() if k not in ("group_policy", "reads_groups")})
    moves = {one.files.folder: one for one in find_moves(tmp_path / "outputs")}
    assert moves.keys() == set(old)
    assert main([str(tmp_path / "outputs"), "--write"]) == 0
    caplog.clear()
    found = run_experiment(others)
    assert "finished before, skipped" in caplog.text
    assert {**found, "finished": 0} == {**result, "finished": 0}
    default = run_experiment(make_config("method=kd", "recipe.epochs=1"))
    assert (default["hash"], default["group_names"]) == (result["hash"], ["head", "medium", "tail"])
    as_before(student_run(others), lambda one: with_groups(one, "oltr"))
    run_experiment(make_config("method=kd", "recipe.epochs=1"))
    [one] = find_moves(tmp_path / "outputs")
    assert "is there already, the same training" in one.line()


def test_a_run_on_images_that_changed_since_stays(make_config, tmp_path):
    pack = tmp_path / "digits.ltpack"
    data = load_data(make_config().dataset, tmp_path)
    write_pack(pack, data)
    config = make_config("method=ce", "dataset=pack", f"dataset.path={pack}", "recipe.epochs=0")
    run_experiment(config)
    as_before(student_run(config))
    data.test_images[0] ^= 1
    write_pack(pack, data)
    [one] = find_moves(tmp_path / "outputs")
    assert "test_data_sha256" in one.reason
    pack.unlink()
    [one] = find_moves(tmp_path / "outputs")
    assert one.run is None
    assert "no such pack file" in one.line()
