"""Several processes that share each batch: for every method the numbers of one process."""

import os
import socket
import traceback
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from torch.nn.modules.batchnorm import _BatchNorm

from ltkd.data import DeviceData
from ltkd.loop.step import Step, make_optimizer
from ltkd.loop.training import Training
from ltkd.losses import ClassGroups
from ltkd.methods import list_methods, method_class
from ltkd.ranks import Ranks

from ..methods.kinds import settings_of
from ..methods.problem import CLASS_COUNTS, SIDE, build_tiny_method, make_networks, method_context_of

BATCH = 16  # of 196 images: the last batch has 4, of which a third process gets none
STEPS = (0, 1, 2, 3, 12)
CASES = {name: (name, {}, "ce") for name in list_methods() if not method_class(name).one_process} | {
    "bayesian, mc_dropout": ("bayesian", {"posterior": "mc_dropout", "dropout": 0.5, "samples": 3}, "ce"),
    "cc, kernel": ("cc", {"form": "kernel"}, "ce"),
    "ckd, class_balanced": ("ckd", {"partner": "class_balanced"}, "ce"),
    "ctkd, image": ("ctkd", {"theta_of": "image"}, "ce"),
    "ltkd, running": ("ltkd", {"rebalancing": "running"}, "ce"),
    "mlkd, public_code": ("mlkd", {"public_code": True}, "ce"),
    "skd, sampled": ("skd", {"variant": "curriculum", "proposal": "sampled"}, "ce"),
    "ce, class_balanced": ("ce", {}, {"name": "class_balanced", "divide_by": "weights"}),
    "kd, class_balanced": ("kd", {}, "class_balanced"),
    "fitnet, class_balanced": ("fitnet", {}, {"name": "class_balanced", "divide_by": "weights"}),
    "kd, ldam": ("kd", {}, {"name": "ldam", "deferred": 0}),
    "kd, focal": ("kd", {}, {"name": "focal", "deferred": 0}),
}


class Float64Data(DeviceData):
    """Images in float64, so that nothing is left of rounding."""

    def batch_of(self, part):
        batch = super().batch_of(part)
        batch.images = batch.images.double()
        return batch

    def normalised(self, images):
        return super().normalised(images).double()


def training_of(name, settings, task_loss, recipe, ranks):
    """A training of the tiny networks on 196 images; normalisation in eval mode, which couples no images."""
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
    images = torch.randint(256, (len(labels), 1, SIDE, SIDE), generator=torch.Generator().manual_seed(3))
    data = Float64Data(images.byte(), labels, mean=[0.5], std=[0.25], crop_padding=1, horizontal_flip=True)
    data = data.shared_by(ranks)
    return Training(
        label=name, identity="", model=student, method=method, teacher=teacher if method.needs.teacher else None,
        extra_teachers=[teacher], teacher_logits=None, extra_logits=[], train=data, test=data, validation=None,
        split=SimpleNamespace(group_names=context.group_names), groups=ClassGroups.of(context.groups), recipe=recipe,
        sampler=None, seed=0, device=torch.device("cpu"), autocast=torch.enable_grad, evaluate_every=1, progress="none",
    )  # fmt: skip


def trained(case, recipe, ranks):
    """Five steps: the metrics of each, then gradients, weights, and all that network and method keep."""
    training = training_of(*CASES[case], recipe, ranks)
    step = Step(training, make_optimizer(training))
    torch.manual_seed(5)
    training.method.start_epoch(1)
    step.start_epoch(1, training.train.draw_epoch(torch.Generator().manual_seed(6)), 0.01)
    numbers = {}
    for number in STEPS:
        given = step.input(number)
        step.ranks.at(number)
        metrics = step.update(given)
        numbers |= {f"step {number}: {name}": value for name, value in metrics.items()}
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
            found.append(f"{case}, {ranks.size} processes, {name}: {value.flatten()[:3]}, {together[name].flatten()[:3]}")
    return found


def work(rank, size, port, recipe, results):
    """One process of three: all cases by the first two of them, then by all."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    try:
        ranks = Ranks(rank, size)
        ranks.join()
        two = torch.distributed.new_group([0, 1])
        groups = [Ranks(rank, 2, group=two)] * (rank < 2) + [ranks]
        own = {case: trained(case, recipe, Ranks()) for case in list(CASES)[rank::size]}
        alone = {case: numbers for part in ranks.gather_objects(own) for case, numbers in part.items()}
        found = []
        for group in groups:
            for case in CASES:
                found += differences(case, alone[case], trained(case, recipe, group), group)
        results.put((rank, found))
        ranks.largest(0)
        ranks.leave()
    except Exception:
        results.put((rank, [traceback.format_exc()]))
        raise


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_for_every_method_processes_that_share_a_batch_compute_what_one_computes(make_config):
    config = make_config("method=ce", f"recipe.batch_size={BATCH}")
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (3, free_port(), config.recipe_of(config.student), results)
    processes = [context.Process(target=work, args=(rank, *arguments)) for rank in range(3)]
    for process in processes:
        process.start()
    try:
        found = [results.get(timeout=600) for _ in processes]
        for process in processes:
            process.join(30)
    finally:
        for process in processes:
            process.kill()
    assert [line for _, lines in found for line in lines] == []
