"""Several processes that share each batch: for every method the numbers of one process."""

import dataclasses
import re
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch.distributed
from PIL import Image
from torch.nn.modules.batchnorm import _BatchNorm

from ltkd.data import DeviceData
from ltkd.data.image_files import ImageFiles
from ltkd.data.streaming import StreamedFiles
from ltkd.errors import UserError
from ltkd.loop.evaluate import predict_logits
from ltkd.loop.step import Step, make_optimizer
from ltkd.loop.teacher_logits import TeacherLogits
from ltkd.loop.training import Training
from ltkd.losses import ClassGroups
from ltkd.methods import list_methods, method_class
from ltkd.ranks import Ranks

from ..conftest import PROJECT
from ..methods.kinds import settings_of
from ..methods.problem import CLASS_COUNTS, NUM_CLASSES, SIDE, build_tiny_method, make_networks, method_context_of
from ..together import run_together

BATCH = 16  # of 196 images: the last batch has 4, of which a third process gets none
STEPS = ((0, 1), (1, 3), (2, 1), (12, 1), (12, 2))  # and the parts in which the batch goes through the networks
MIXED = "mixup+cutmix"
CASES = {name: (name, {}, "ce") for name in list_methods() if not method_class(name).one_process} | {
    "bayesian, mc_dropout": ("bayesian", {"posterior": "mc_dropout", "dropout": 0.5, "samples": 3}, "ce"),
    "cc, kernel": ("cc", {"form": "kernel"}, "ce"),
    "ckd, class_balanced": ("ckd", {"partner": "class_balanced"}, "ce"),
    "ctkd, image": ("ctkd", {"theta_of": "image"}, "ce"),
    "deit_lt, weighted": ("deit_lt", {"deferral_fraction": 0.0}, "ce"),
    "ikl, class_information": ("ikl", {"class_information": True}, "ce"),
    "ltkd, running": ("ltkd", {"rebalancing": "running"}, "ce"),
    "mlkd, public_code": ("mlkd", {"public_code": True}, "ce"),
    "skd, sampled": ("skd", {"variant": "curriculum", "proposal": "sampled"}, "ce"),
    "ce, class_balanced": ("ce", {}, {"name": "class_balanced", "divide_by": "weights"}),
    "kd, class_balanced": ("kd", {}, "class_balanced"),
    "fitnet, class_balanced": ("fitnet", {}, {"name": "class_balanced", "divide_by": "weights"}),
    "kd, ldam": ("kd", {}, {"name": "ldam", "deferred": 0}),
    "kd, focal": ("kd", {}, {"name": "focal", "deferred": 0}),
    "kd, mixed": ("kd", {}, "ce", MIXED),
    "fitnet, mixed": ("fitnet", {}, {"name": "class_balanced", "divide_by": "weights"}, MIXED),
    "dist, mixed": ("dist", {}, "ce", MIXED),
}


class InFloat64:
    """Images in float64, so that nothing is left of rounding."""

    forward_batch = 10

    def _normalise(self, crops):
        return super()._normalise(crops).double()


class Float64Data(InFloat64, DeviceData):
    pass


class Float64Files(InFloat64, StreamedFiles):
    pass


def pictures():
    """196 images of the tiny problem's size."""
    shape = (int(CLASS_COUNTS.sum()), 1, SIDE, SIDE)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(3)).byte()


def in_files(folder):
    """`pictures`, each in a file."""
    names = [f"{number}.png" for number in range(CLASS_COUNTS.sum())]
    for name, image in zip(names, pictures(), strict=True):
        Image.fromarray(image[0].numpy()).save(folder / name)
    return ImageFiles(folder, names, names, 1, SIDE)


def training_of(name, settings, task_loss, augmentation="crop_flip", *, recipe, ranks, files=None):
    """A training of the tiny networks on `pictures`; normalisation in eval mode, which couples no images.

    files: that the images are decoded from.
    """
    student, teacher = make_networks()
    settings = settings_of(name) | settings
    method = build_tiny_method(name, settings, student, teacher, 1, task_loss, ranks).double()
    method.task_loss.adapt_network(student)
    student = method.adapt_student(student).double().train()
    method.train()
    for module in (*student.modules(), *method.modules()):
        if isinstance(module, _BatchNorm):
            module.eval()
    context = method_context_of(method)
    labels = torch.repeat_interleave(torch.arange(len(CLASS_COUNTS)), CLASS_COUNTS)
    kind, images = (Float64Data, pictures()) if files is None else (Float64Files, files)
    data = kind(images, labels, mean=[0.5], std=[0.25], crop_padding=1, horizontal_flip=True)
    data = data.augmented(augmentation).shared_by(ranks)
    return Training(
        label=name, identity="", model=student, method=method, teacher=teacher if method.needs.teacher else None,
        extra_teachers=[teacher], teacher_logits=None, extra_logits=[], train=data, test=data, validation=None,
        split=SimpleNamespace(group_names=context.group_names), groups=ClassGroups.of(context.groups), recipe=recipe,
        sampler=None, seed=0, device=torch.device("cpu"), autocast=torch.enable_grad, evaluate_every=1, progress="none",
    )  # fmt: skip


def trained(case, recipe, ranks, files=None):
    """Five steps: the metrics of each, then gradients, weights, and all that network and method keep."""
    training = training_of(*CASES[case], recipe=recipe, ranks=ranks, files=files)
    step = Step(training, make_optimizer(training))
    torch.manual_seed(5)
    training.method.start_epoch(1)
    step.start_epoch(1, training.train.draw_epoch(torch.Generator().manual_seed(6)), 0.01)
    numbers = {}
    for number, parts in STEPS:
        step.data = step.data.in_parts(parts)
        metrics = step.update(step.input(number))
        numbers |= {f"step {number} in {parts}: {name}": value for name, value in metrics.items()}
    training.method.end_epoch(training.model)
    for role, module in (("network", training.model), ("method", training.method)):
        numbers |= {f"{role}: {name}": value for name, value in module.state_dict().items()}
        numbers |= {f"{role}: gradient of {n}": p.grad for n, p in module.named_parameters() if p.grad is not None}
    numbers["random numbers"] = torch.get_rng_state()
    return numbers


def differences(case, alone, together, ranks):
    if alone.keys() != together.keys():
        return [f"{case}: {alone.keys() ^ together.keys()}"]
    found = []
    for name, value in alone.items():
        in_float32 = value.dtype == torch.float32  # accuracies and the like
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if in_float32 else {"rtol": 1e-6, "atol": 1e-9}
        if not torch.allclose(together[name].double(), value.double(), **tolerance, equal_nan=True):
            first = [one.flatten()[:3].tolist() for one in (value, together[name])]
            found.append(f"{case}, {ranks.size} processes, {name}: {first}")
    return found


def decoded(case, alone, recipe, ranks, files):
    """The differences where images are decoded from files, and where a process decodes others than its own."""
    own = training_of(*CASES[case], recipe=recipe, ranks=ranks).train
    plan = own.draw_epoch(torch.Generator().manual_seed(6))
    with mock.patch.object(ImageFiles, "_decoded", autospec=True, side_effect=ImageFiles._decoded) as decode:
        found = differences(f"{case}, from files", alone, trained(case, recipe, ranks, files), ranks)
    expected = []
    for number, parts in STEPS:
        batch = own.steps(BATCH).batch(number)
        for part in own.in_parts(parts).steps(BATCH).own(number):
            if own.augmentation.mixing:  # the neighbour of its first image
                expected.append((part.start if part.start > batch.start else batch.stop) - 1)
            expected += range(part.start, part.stop)
    rows = [call.args[1] for call in decode.call_args_list]
    return found + ([] if rows == plan.permutation[expected].tolist() else [f"{case}: decodes {rows}"])


def compare(ranks, recipe, files):
    """In each of three processes: all cases by the first two of them, then by all. Returns what differs."""
    two = torch.distributed.new_group([0, 1])
    own = {case: trained(case, recipe, Ranks()) for case in list(CASES)[ranks.rank :: ranks.size]}
    alone = {case: numbers for part in ranks.gather_objects(own) for case, numbers in part.items()}
    found = []
    for group in [Ranks(ranks.rank, 2, group=two)] * (ranks.rank < 2) + [ranks]:
        for case in CASES:
            found += differences(case, alone[case], trained(case, recipe, group), group)
        for case in ("kd", "kd, mixed"):
            found += decoded(case, alone[case], recipe, group, files)
        training = training_of("ce", {}, "ce", recipe=recipe, ranks=group)
        logits, expected = (
            predict_logits(training.model, training.test.shared_by(one), torch.enable_grad) for one in (group, Ranks())
        )
        found += [] if torch.equal(logits, expected) else ["evaluation"]
    ranks.largest(0)  # none leaves before the others are done
    return found[:20]


def test_for_every_method_processes_that_share_a_batch_compute_what_one_computes(make_config, tmp_path):
    config = make_config("method=ce", f"recipe.batch_size={BATCH}")
    found = run_together(3, compare, config.recipe_of(config.student), in_files(tmp_path))
    assert found == [[], [], []]


@pytest.mark.parametrize("decoded", [False, True])
def test_logits_ahead_of_a_step_are_of_the_own_images_of_each_part(make_config, tmp_path, decoded):
    config = make_config("method=ce", f"recipe.batch_size={BATCH}", "recipe.accumulation=3")
    files = in_files(tmp_path) if decoded else None
    for rank in range(2):
        training = training_of(
            "kd", {}, "ce", recipe=config.recipe_of(config.student), ranks=Ranks(rank, 2), files=files
        )
        teacher = training.teacher
        ahead = TeacherLogits(teacher, training.train, torch.enable_grad, num_classes=NUM_CLASSES)
        step = Step(dataclasses.replace(training, teacher_logits=ahead), make_optimizer(training))
        step.start_epoch(1, training.train.draw_epoch(torch.Generator().manual_seed(6)), 0.01)
        for number in range(training.steps_per_epoch):
            given = step.input(number)
            batch = given.batch(step.data)
            assert sum(share.rows.stop - share.rows.start for share in given.shares) == len(batch.labels)
            with torch.no_grad():
                torch.testing.assert_close(given.teacher_logits, teacher(batch.images).logits.float())


def test_the_page_says_of_every_method_how_processes_share_it():
    page = (PROJECT / "docs" / "many_gpus.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| method.*$", page, re.MULTILINE)[:3]
    by_images, by_batch, refused = (set(re.findall(r"\w+", row.split(" | ")[0])) for row in rows)
    for name in list_methods():
        method = method_class(name)
        row = refused if method.one_process else by_batch if method.reads_batch else by_images
        assert name in row, name


@pytest.mark.parametrize("total", [2, 3, 5, 7, 8, 33, 128])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_image_counts_once_and_no_process_has_a_single_one(total, size):
    shares = [Ranks(rank, size).share(total) for rank in range(size)]
    rows = [row for share in shares for row in range(total)[share.rows][: share.counted]]
    assert rows == list(range(total))
    assert sum(share.weight for share in shares) == pytest.approx(1)
    assert all(share.rows.stop - share.rows.start >= 2 for share in shares)
    counted = [share.counted for share in shares if share.counted]
    assert max(counted) - min(counted) <= 1
    blocks = [Ranks(rank, size).block(total, unit=4) for rank in range(size)]
    assert [row for block in blocks for row in range(total)[block]] == list(range(total))
    assert all(block.start % 4 == 0 or block.start == total for block in blocks)


def test_the_environment_of_torchrun_and_of_srun_is_read():
    assert Ranks.from_environment({}).alone
    assert Ranks.from_environment({"RANK": "0", "WORLD_SIZE": "1"}).alone
    by_torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    by_srun = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_NTASKS": "9"}
    for environment in (by_torchrun, by_srun):
        ranks = Ranks.from_environment(environment)
        assert (ranks.rank, ranks.size, ranks.local_rank, ranks.is_first) == (5, 8, 1, False)
    assert Ranks.from_environment({"SLURM_NTASKS": "9", "SLURM_PROCID": "0"}).alone  # in a batch script, no step
    with pytest.raises(UserError, match="WORLD_SIZE"):
        Ranks.from_environment({"WORLD_SIZE": "many"})
