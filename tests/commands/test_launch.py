"""Exit codes of train.py that nothing else shows."""

from types import SimpleNamespace

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from ltkd.commands import launch
from ltkd.config.compose import compose_values
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.errors import UserError
from ltkd.runs.directory import locked


@pytest.mark.parametrize(("mode", "ending"), [(RunMode.RUN, SystemExit), (RunMode.MULTIRUN, UserError)])
def test_a_run_that_another_process_works_on_ends_with_a_code_of_its_own(tmp_path, monkeypatch, mode, ending):
    values = compose_values("method=ce", f"output_root={tmp_path}")
    monkeypatch.setattr(launch.HydraConfig, "get", lambda: SimpleNamespace(mode=mode))
    for name in ("_log_to_console", "end_on_signals"):
        monkeypatch.setattr(launch, name, lambda *arguments: None)
    with locked(student_run(load_config(values)).files, wait=False), pytest.raises(ending) as ended:
        launch.launch(OmegaConf.create(values))
    if ending is SystemExit:
        assert ended.value.code == 75
