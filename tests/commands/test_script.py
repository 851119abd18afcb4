"""Command lines: options in every way of writing them, nothing taken for what it is not, and how a command ends."""

import runpy
import subprocess
import sys

import pytest

from ltkd.commands.script import Parser, command
from ltkd.errors import UserError

from ..conftest import PROJECT

SCRIPTS = sorted(path.stem for path in (PROJECT / "scripts").glob("*.py"))


@pytest.fixture
def parser():
    parser = Parser("Does something.\n\n    python scripts/some.py jobs=2\n")
    parser.add_workers()
    parser.add_argument("--output")
    parser.add_argument("--dry-run", action="store_true")
    return parser


@pytest.mark.parametrize("jobs", [["jobs=2"], ["--jobs=2"], ["--jobs", "2"]])
def test_an_option_is_written_in_three_ways_and_settings_are_left_as_they_are(parser, jobs):
    settings = ["seed=0,1", "+student.recipe.momentum=0.8", "~a", "jobs.x=3", "method=glob(*)"]
    options, rest = parser.split([*settings[:2], *jobs, "--dry-run", "output=a | b=c", *settings[2:]])
    assert (options.jobs, options.devices, options.dry_run, options.output) == (2, None, True, "a | b=c")
    assert rest == settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output="], "output: has no value"),
        (["--output"], "--output: expected one argument"),
        (["--output", "--dry-run"], "--output: expected one argument"),
        (
            ["--job", "2"],
            r"unknown argument '--job'; options: --devices, --dry-run, --help, --jobs, --minutes, --output",
        ),
        (["jobs=0"], "--jobs: should be a whole number from 1 on, got '0'"),
        (["jobs=two"], "--jobs: should be a whole number from 1 on, got 'two'"),
        (["devices=a"], "--devices: should be numbers like 0,1, got 'a'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(parser, arguments, message):
    with pytest.raises(UserError, match=f"^{message}"):
        parser.split(arguments)


def test_options_between_files_are_taken_out(parser):
    parser.add_argument("files", nargs="*")
    assert parser.split(["a", "jobs=2", "b", "output=c"])[0].files == ["a", "b"]


def test_a_script_without_settings_refuses_them():
    with pytest.raises(UserError, match="unknown argument 'method=kd'; options: --help"):
        Parser("Does something.", takes_settings=False).split(["method=kd"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [(UserError("seed: wrong"), 2, "error: seed: wrong\n"), (KeyboardInterrupt(), 130, "stopped; repeat")],
)
def test_errors_become_exit_codes(parser, capsys, error, code, line):
    @command(parser)
    def main(options, settings):
        raise error

    assert main(["jobs=2"]) == code
    assert capsys.readouterr().err.startswith(line)


def test_a_result_is_the_exit_code_and_none_is_0(parser, capsys):
    codes = iter([3, None])
    main = command(parser, help_without_arguments=True)(lambda options, settings: next(codes))
    assert main([]) == 0
    assert "python scripts/some.py jobs=2" in capsys.readouterr().out
    assert [main(["jobs=2"]), main(["jobs=2"])] == [3, 0]


def test_a_reader_that_has_gone_costs_no_traceback():
    program = (
        "import sys; from ltkd.commands.script import Parser, command\n"
        "sys.exit(command(Parser('x'))(lambda *_: print('line\\n' * 100000))([]))"
    )
    shown = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -1; echo "${PIPESTATUS[0]}"', sys.executable, program],
        capture_output=True, text=True, cwd=PROJECT,
    )  # fmt: skip
    assert (shown.stdout, shown.stderr) == ("line\n141\n", "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_shows_an_example_and_its_options(name, capsys):
    script = runpy.run_path(str(PROJECT / "scripts" / f"{name}.py"))
    with pytest.raises(SystemExit, match="0"):
        script["main"](["--help"])
    shown = capsys.readouterr().out
    assert f"python scripts/{name}.py" in shown
    assert "options:" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "--jobs", "2", "method=ce,kd"],
        ["reproduce", "jobs=2", "table=component_ablation_cpu"],
        ["tune", "jobs=2", "method=kd", "method.weight=1,4", "dataset.validation_per_class=10"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_scripts_that_start_runs_plan_them(arguments, tmp_path, capsys):
    name, *rest = arguments
    script = runpy.run_path(str(PROJECT / "scripts" / f"{name}.py"))
    assert script["main"]([*rest, f"output_root={tmp_path}", "--dry-run"]) == 0
    assert capsys.readouterr().err == ""
