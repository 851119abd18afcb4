"""Every method in one process: what fails is a row, and what spoils the process ends it."""

from ltkd.loop.graph import CaptureFailed
from ltkd.runs import run


def test_a_failed_capture_ends_the_process_with_what_is_left(script, tmp_path, monkeypatch, caplog):
    caplog.set_level("ERROR", "ltkd")  # as the script does, and for this test alone
    tried = []

    def train(config):
        tried.append(config.method_name)
        raise CaptureFailed("it looks") if config.method_name == "kd" else ValueError("no matter")

    monkeypatch.setattr(run, "run_experiment", train)
    settings = ["teacher=resnet8", "student=resnet8", "device=cpu", f"output_root={tmp_path}"]
    code, said, _ = script("smoke", "methods=ce,kd,at,crd", *settings)
    assert (code, tried) == (1, ["ce", "kd"])
    assert said.endswith(
        "0 of 2 methods ran: not ce, kd\nstopped: a failed capture spoils its process; go on with --methods=at,crd\n"
    )
