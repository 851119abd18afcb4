"""Audits one network: a page on its accuracy, bias, calibration, worst classes, near-duplicates and suspicious labels.

    python scripts/audit.py RUN                               RUN/audit.html, on the run's own data
    python scripts/audit.py RUN dataset.path=FOLDER           the data lies elsewhere now (or data_root=FOLDER)
    python scripts/audit.py model.onnx dataset=image_folder dataset.path=FOLDER dataset.image_size=32
    python scripts/audit.py weights.pth student=resnet20 dataset=cifar100_lt output=page.html

RUN is a run's folder (train.py names it last); with a file the other settings are those of train.py, and the page is
model.onnx.audit.html. Of weights with student=NAME add what they were trained with: student.task_loss=balanced_softmax.
A page holds its figures and images and needs no other file. Labels are suspicious where the run's teacher confidently
disagrees; without its weights, or with a file, the audited network itself does. output=FILE.html, device=auto.
"""

import argparse
import sys
from pathlib import Path

from ltkd.commands.script import Parser, command
from ltkd.errors import UserError

PARSER = Parser(__doc__)
PARSER.add_argument("place", type=Path, metavar="RUN", help="a run's folder, or a file of weights")
PARSER.add_argument("--output", type=Path, metavar="FILE.html", help="default: RUN/audit.html, or FILE.audit.html")
PARSER.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


@command(PARSER, help_without_arguments=True)
def main(options: argparse.Namespace, settings: list[str]) -> None:
    from ltkd.deploy.audit import audited_run, audited_weights, write_audit  # here: --help needs no torch
    from ltkd.machine import resolve_device

    place = options.place
    default = place / "audit.html" if place.is_dir() else place.with_name(f"{place.name}.audit.html")
    output = options.output or default
    if output.suffix != ".html":
        raise UserError(f"output: should be a .html file, got {output}")
    of = audited_run if place.is_dir() else audited_weights
    audited = of(place, settings, resolve_device(options.device))
    findings, judge = write_audit(audited, output), audited.judge
    evaluation = findings.evaluation
    groups = ", ".join(f"{name} {value:.2f}" for name, value in evaluation.per_group.items() if value is not None)
    sys.stdout.write(
        f"accuracy {evaluation.all:.2f} % ({groups}), mean of the classes {findings.per_class_mean:.2f}, calibration "
        f"error {evaluation.expected_calibration_error:.2f}\n{findings.num_pairs} test images look like training ones\n"
        f"{judge.name} takes {findings.num_disagreeing} of {findings.num_tail_images} {findings.tail} training images "
        f"for another class{f' ({judge.no_teacher})' if judge.no_teacher else ''}\n"
        f"written: {output}\n"
    )
