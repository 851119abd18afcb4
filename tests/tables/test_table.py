"""Tables: cells from axes, runs from cells, results by identity; every table of conf/table composes."""

import json

import pytest

from ltkd.config.compose import compose_values, compose_variants
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.errors import UserError
from ltkd.files import write_json
from ltkd.results.read import SCHEMA_VERSION
from ltkd.tables.file import list_tables, load_table
from ltkd.tables.table import TEACHER, compose_runs

TABLE = """
name: mine
title: A table
study: tables
base: [teacher=resnet8, recipe.epochs=2]
rows:
  method: {CE: method=ce, KD: [method=kd, method.temperature=2], other: null}
  task loss: {ce: "", balanced: student.task_loss=balanced_softmax}
columns:
  imbalance factor: {10: dataset.imbalance_factor=10, 20: dataset.imbalance_factor=20}
without:
  - {method: KD, task loss: balanced, imbalance factor: 10}
  - {method: other, task loss: balanced}
seeds: [0, 1]
baselines: [CE]
published:
  a paper:
    - {at: {method: KD, imbalance factor: 10}, all: 50.0, tail: 20.5}
    - {at: {method: other}, all: 40}
    - {at: {role: teacher}, tail: 15.28}
"""


@pytest.fixture
def write_table(tmp_path):
    def write(content=TABLE, name="mine"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(content)
        return str(path)

    return write


MANY_CELLS = 20


def covering(cells):
    """Cells of a large table in which every label of every axis occurs: a typo in any of them shows."""
    chosen, seen = [], set()
    for cell in cells:
        labels = set((cell.row | cell.column).items())
        if not labels <= seen:
            chosen.append(cell)
            seen |= labels
    return chosen


@pytest.mark.parametrize("name", list_tables())
def test_every_table_composes_and_its_cells_are_different_runs(name):
    table = load_table(name)
    cells = [cell for cell in table.cells if cell.overrides is not None]
    cells = cells if len(cells) <= MANY_CELLS else covering(cells)
    runs = compose_runs(table, cells=cells)
    assert len(runs) == len(cells) * len(table.seed_values())
    for column in {run.cell.column_label for run in runs}:
        # a cell that is the same run as another one of its column is a mistake in the table
        directories = [run.student.directory for run in runs if run.cell.column_label == column]
        assert len(set(directories)) == len(directories)
    assert {run.config.study for run in runs} == {table.study}


def test_a_large_table_is_tested_by_cells_in_which_every_label_occurs(write_table):
    cells = load_table(write_table()).cells
    chosen = covering(cells)
    assert [cell.label for cell in chosen] == [
        "CE, ce | 10",
        "CE, balanced | 10",
        "KD, ce | 10",
        "other, ce | 10",
        "CE, ce | 20",
    ]
    assert {item for cell in chosen for item in (cell.row | cell.column).items()} == {
        item for cell in cells for item in (cell.row | cell.column).items()
    }


def test_cells_are_the_product_of_the_axes_without_what_is_left_out(write_table):
    table = load_table(write_table())
    assert [cell.label for cell in table.cells] == [
        "CE, ce | 10", "CE, balanced | 10", "KD, ce | 10", "other, ce | 10",
        "CE, ce | 20", "CE, balanced | 20", "KD, ce | 20", "KD, balanced | 20", "other, ce | 20",
    ]  # fmt: skip
    assert [cell.is_baseline for cell in table.cells] == [True, True, False, False, True, True, False, False, False]
    assert table.cells[2].overrides == [
        "teacher=resnet8", "recipe.epochs=2", "study=tables", "dataset.imbalance_factor=10", "method=kd",
        "method.temperature=2",
    ]  # fmt: skip
    assert table.cells[3].overrides is None


def test_published_values_are_found_by_labels(write_table):
    table = load_table(write_table())
    kd = table.cells[2]
    [published] = table.published_at(kd.row | kd.column)
    assert (published.source, published.values) == ("a paper", {"all": 50.0, "tail": 20.5})
    assert table.published_at(table.cells[6].row | table.cells[6].column) == []  # KD, but imbalance 20
    assert len(table.published_at(table.cells[3].row | table.cells[3].column)) == 1
    [teacher] = table.published_at({"imbalance factor": "20"}, TEACHER)
    assert teacher.values == {"tail": 15.28}


def test_runs_are_what_their_overrides_compose(write_table, tmp_path):
    table = load_table(write_table(TABLE + "split_seeds: [0, 3]\nteachers: per_seed\n"))
    runs = compose_runs(table, [f"output_root={tmp_path}/out", "recipe.epochs=1"])
    assert len(runs) == 7 * 4
    assert [(run.split_seed, run.seed) for run in runs[:4]] == [(0, 0), (0, 1), (3, 0), (3, 1)]
    for run in runs[4:10]:
        config = load_config(compose_values(*run.overrides))
        assert config == run.config
        assert student_run(config).directory == run.student.directory
        assert config.teacher.seed == run.seed
        assert config.recipe.epochs == 1
    kd = next(run for run in runs if run.cell.row["method"] == "KD")
    assert [teacher.seed for teacher in kd.teachers] == [0]
    assert runs[0].teachers == []


def test_a_variant_is_seen_by_interpolations():
    values = compose_variants(["teacher.seed=${seed}"], [{"seed": 3}, {"seed": 4}])
    assert [one["teacher"]["seed"] for one in values] == [3, 4]
    assert values[0] == compose_values("teacher.seed=${seed}", "seed=3")


def test_a_result_counts_for_the_cell_of_its_identity_alone(write_table, tmp_path):
    table = load_table(write_table())
    runs = compose_runs(table, [f"output_root={tmp_path}/out"])
    run, other = runs[0], runs[1]
    assert run.result() is None
    result = {"schema_version": SCHEMA_VERSION, "identity": run.student.identity}
    write_json(run.student.directory / "result.json", result)
    assert run.result() == json.loads(json.dumps(result))
    assert other.result() is None
    write_json(other.student.directory / "result.json", result)  # a folder of the right name is not enough
    with pytest.raises(UserError, match="belongs to another configuration"):
        other.result()
    write_json(run.student.directory / "result.json", result | {"schema_version": 0})
    with pytest.raises(UserError, match="schema version"):
        run.result()


MISTAKES = {
    "name: mine": ("name: yours", "name: should be the file's, 'mine', got 'yours'"),
    "title: A table\n": ("", "title: missing"),
    "study: tables": ("study: tables\nstudies: x", "studies: unknown key (did you mean 'study'?)"),
    "seeds: [0, 1]": ("seeds: [0, 0]", "seeds: [0, 0] has one twice"),
    "seeds: [0, 1]\n": ("seeds: []\n", "seeds: "),
    "baselines: [CE]": ("baselines: [Ce]", "baselines: unknown name 'Ce'; choose one of: CE, KD"),
    "CE: method=ce": ("CE: ce", "CE: should be an override, key=value, got 'ce'"),
    "{method: other, task loss: balanced}": ("{methods: other}", "without: unknown name 'methods'"),
    "{CE: method=ce, KD: [method=kd, method.temperature=2], other: null}": (
        "{CE: null, KD: null, other: null}",
        "rows: none is run",
    ),
    "tail: 20.5": ("tail: 2050", "published.a paper: tail should be an accuracy in %, got 2050"),
    "at: {method: other}": ("at: {method: another}", "published.a paper.method: unknown name 'another'"),
    "{at: {role: teacher}, tail: 15.28}": ("{all: 40}", "published.a paper: should have `at`"),
    "{role: teacher}": ("{role: student}", "role can be 'teacher' only"),
    "  imbalance factor: {": ("  method: {", "columns.method: is an axis of the rows already"),
    "base: [": ("base: [[", "cannot be read"),
}


@pytest.mark.parametrize("right", MISTAKES, ids=lambda value: value.strip())
def test_a_mistake_in_a_table_is_named(write_table, right):
    wrong, message = MISTAKES[right]
    assert right in TABLE
    with pytest.raises(UserError) as caught:
        load_table(write_table(TABLE.replace(right, wrong)))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_what_does_not_compose_is_told_with_its_cell(write_table):
    for wrong in ("method.temperatur=2", "method.temperature=-2"):
        table = load_table(write_table(TABLE.replace("method.temperature=2", wrong)))
        with pytest.raises(UserError, match=r"(?s)table mine, KD, ce \| 10: .*method.temperatur"):
            compose_runs(table)


def test_figures_of_validation_images_need_some(write_table):
    for accuracy in ("validation", "selected"):
        content = f"{TABLE}accuracy: {accuracy}\n"
        with pytest.raises(UserError, match=f"accuracy: {accuracy} needs held-out images.* the table's base"):
            compose_runs(load_table(write_table(content)))
        held_out = content.replace("base: [", "base: [dataset.validation_per_class=2, ")
        assert compose_runs(load_table(write_table(held_out)))


def test_seeds_and_study_are_the_tables_own(write_table):
    table = load_table(write_table())
    for override in ("seed=3", "study=elsewhere", "dataset.split_seed=1", "++seed=3"):
        with pytest.raises(UserError, match="the table mine says it"):
            compose_runs(table, [override])


def test_what_tells_cells_apart_is_the_tables_own(write_table):
    table = load_table(write_table())
    assert {"method", "dataset.imbalance_factor"} <= table.keys_of_cells
    for override in ("method=ltkd", "++dataset.imbalance_factor=5"):
        with pytest.raises(UserError, match="the table mine says it"):
            compose_runs(table, [override])
    below_one = load_table(write_table(TABLE.replace("CE: method=ce", "CE: [method=ce, +teacher.recipe.epochs=3]")))
    with pytest.raises(UserError, match=r"teacher\.recipe: the table mine says it"):
        compose_runs(below_one, ["teacher.recipe={epochs:2}"])
    runs = compose_runs(table, ["recipe.epochs=3", "dataset=cifar100_lt"])  # what only the base says may be another
    assert {run.config.recipe.epochs for run in runs} == {3}
    assert {run.config.dataset.imbalance_factor for run in runs} == {10, 20}  # still as the columns say


def test_an_unknown_table_is_told_with_the_choices():
    with pytest.raises(UserError, match="did you mean 'cifar100_lt_main'"):
        load_table("cifar100_lt_mian")


@pytest.mark.parametrize(
    "name",
    [
        "strong_students",
        "strong_students_cpu",
        "better_teachers_cpu",
        "strong_student_checks_cpu",
        "strong_students_short",
    ],
)
def test_the_row_of_the_preset_is_the_preset(name):
    table = load_table(name)
    of_table = compose_runs(table, cells=[cell for cell in table.cells if cell.row_label == "strong_student"])[0].config
    preset = load_config(compose_values("experiment=strong_student"))
    assert of_table.method == preset.method
    assert of_table.student.start == preset.student.start == "teacher"
    assert of_table.recipe_of(of_table.student).sampling == preset.recipe_of(preset.student).sampling == "square_root"
    assert of_table.recipe_of(of_table.teacher).sampling == preset.recipe_of(preset.teacher).sampling == "instance"
