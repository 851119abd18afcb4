"""What is loaded and when: nothing that a run does not use; a launcher only where it is asked for."""

import json
import os
import subprocess
import sys

from .conftest import PROJECT

HEAVY = ("wandb", "timm", "torchvision", "matplotlib", "pandas", "PIL", "submitit")


def test_a_run_loads_nothing_that_it_does_not_use(tmp_path):
    program = f"""
import json, runpy, sys
sys.argv = ["train.py", "output_root={tmp_path}", "method=kd", "teacher=resnet8", "student=resnet8", "recipe.epochs=1",
            "recipe.warmup_epochs=0", "wandb.mode=disabled", "run.progress=none", "device=cpu"]
runpy.run_path("src/train.py", run_name="__main__")
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PROJECT, timeout=600)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert "torch" in loaded
    assert set(HEAVY).isdisjoint(loaded)


def test_scripts_say_what_they_do_without_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    for script in ("reproduce", "tune", "wandb_sweep"):
        command = [sys.executable, f"scripts/{script}.py", "--help"]
        paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        shown = subprocess.run(
            command, capture_output=True, text=True, cwd=PROJECT, env=os.environ | {"PYTHONPATH": paths}, timeout=600
        )
        assert shown.returncode == 0, shown.stderr
        assert f"python scripts/{script}.py" in shown.stdout


def test_the_slurm_preset_composes_with_its_plugin():
    command = [sys.executable, "src/train.py", "hydra/launcher=slurm", "hydra.launcher.partition=gpu", "--cfg", "hydra"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=600)
    assert shown.returncode == 0, shown.stderr
    assert "SlurmLauncher" in shown.stdout
    assert "submitit_folder: ${hydra.sweep.dir}/slurm/%j" in shown.stdout
    assert "partition: gpu" in shown.stdout
