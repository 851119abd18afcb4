"""Audits one network: a page on its accuracy, bias, calibration, worst classes, near-duplicates and suspicious labels.

    python scripts/audit.py RUN                               RUN/audit.html, on the run's own data
    python scripts/audit.py RUN dataset.path=FOLDER           the data lies elsewhere now (or data_root=FOLDER)
    python scripts/audit.py model.onnx dataset=image_folder dataset.path=FOLDER dataset.image_size=32
    python scripts/audit.py weights.pth student=resnet20 dataset=cifar100_lt output=page.html

RUN is a run's folder (train.py names it last); with a file the other settings are those of train.py. The page holds its
figures and images and needs no other file. output=FILE.html, device=auto.
"""

import sys
from pathlib import Path

from ltkd.commands.arguments import split_arguments
from ltkd.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(__doc__)
        return 0
    from ltkd.deploy.audit import audited_run, audited_weights, write_audit  # here: --help needs no torch
    from ltkd.machine import resolve_device

    try:
        own, rest = split_arguments(arguments, ("output", "device"))
        if not rest:
            raise UserError("audit: takes RUN, a run's folder or a file of weights")
        place = Path(rest[0])
        output = Path(own.get("output") or (place if place.is_dir() else place.parent) / "audit.html")
        if output.suffix != ".html":
            raise UserError(f"output: should be a .html file, got {output}")
        of = audited_run if place.is_dir() else audited_weights
        audited = of(place, rest[1:], resolve_device(own.get("device", "auto")))
        findings = write_audit(audited, output)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    evaluation = findings.evaluation
    groups = ", ".join(f"{name} {value:.2f}" for name, value in evaluation.per_group.items() if value is not None)
    sys.stdout.write(
        f"accuracy {evaluation.all:.2f} % ({groups}), mean of the classes {findings.per_class_mean:.2f}, calibration "
        f"error {evaluation.expected_calibration_error:.2f}\n{findings.num_pairs} test images look like training ones; "
        f"{findings.num_disagreeing} of {findings.num_tail_images} {findings.tail} labels are suspicious\n"
        f"written: {output}\n"
    )
    return 0
