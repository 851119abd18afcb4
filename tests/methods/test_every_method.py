"""What must hold for every method of the registry. A new method is tested here by being registered.

Whole runs of every method (digits, kill and resume) are in tests/runs/test_every_method_runs.py.
"""

import copy
import re

import pytest
import torch
from torch.autograd import gradcheck

from ltkd import losses
from ltkd.methods import list_methods, method_class

from .problem import CLASS_COUNTS, make_problem, uses_teacher

ALL = list_methods()
DISTILLING = [name for name in ALL if uses_teacher(name)]


def restorable(problem):
    """A function that computes the objective, always from the same buffers and the same random state."""
    modules = (problem.student, problem.method)
    saved = [{name: buffer.clone() for name, buffer in module.named_buffers()} for module in modules]

    def objective(*_):
        for module, buffers in zip(modules, saved, strict=True):
            for name, buffer in module.named_buffers():
                buffer.data.copy_(buffers[name])
        torch.manual_seed(3)
        return sum(problem.terms().values())

    return objective


# Derivatives that are not those of the value, by the method's definition; their own tests check what they are.
STOPPED = {
    "bikd": "the weights of the images are functions of the student's logits, without gradient, and learn at each call",
    "ctkd": "the gradient of the temperature is reversed",
    "wsl": "the weights of the images are functions of the student's logits, without gradient",
    "gml": "the temperature learns from a term of its own, which trains nothing else",
    "okd": "student and module each take the other as it is",
}


@pytest.mark.parametrize("name", sorted(set(ALL) - STOPPED.keys()))
def test_derivatives_in_float64(name):
    problem = make_problem(name)
    problem.method.start_epoch(5)
    objective = restorable(problem)
    objective()  # what the first batch sets (normalisation constants, running means) is set
    objective = restorable(problem)
    parameters = problem.trainable()
    # the objective reads the parameters, which gradcheck moves in place
    assert gradcheck(objective, parameters, fast_mode=True, atol=1e-6)
    gradients = torch.autograd.grad(objective(), parameters, allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("name", ALL)
def test_terms_are_finite_scalars_and_the_task_is_among_them(name):
    problem = make_problem(name)
    objective = restorable(problem)
    assert torch.equal(objective(), objective())  # the same random state gives the same terms
    terms = problem.terms()
    assert "task" in terms
    assert len(terms) > 1 or not uses_teacher(name)
    for term in terms.values():
        assert term.shape == ()
        assert term.isfinite()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [1e4, 1e-4])
def test_bfloat16_autocast_is_finite_at_huge_and_tiny_logits(name, size):
    problem = make_problem(name, dtype=torch.float32)
    for network in (problem.student, problem.teacher):
        if network is problem.teacher or hasattr(network, "norms"):
            weight = network.classifier.weight.data
            weight.copy_(size * torch.sign(weight))
    with torch.autocast("cpu", torch.bfloat16):
        terms = problem.terms()
    sum(terms.values()).backward()
    for term in terms.values():
        assert term.dtype == torch.float32
        assert term.isfinite()
    for parameter in problem.trainable():
        assert parameter.grad is None or parameter.grad.isfinite().all()


# the normalisation after a convolution takes its bias out again
WITHOUT_GRADIENT = re.compile(r"convolutions\.\d\.bias$")


@pytest.mark.parametrize("name", DISTILLING)
def test_ten_steps_leave_the_teacher_alone_and_move_every_parameter(name):
    problem = make_problem(name, dtype=torch.float32)
    before = copy.deepcopy(problem.teacher.state_dict())
    groups = problem.method.parameter_groups()
    own = [id(p) for group in groups for p in group["params"]]
    assert len(own) == len(set(own))
    assert set(own) == {id(p) for p in problem.method.parameters() if p.requires_grad}
    assert not set(own) & {id(p) for p in problem.student.parameters()}
    optimizer = torch.optim.SGD(
        [{"params": list(problem.student.parameters())}, *[g for g in groups if g["params"]]], lr=0.01
    )
    start = [p.detach().clone() for p in problem.trainable()]
    for _ in range(10):
        problem.method.start_epoch(5)
        optimizer.zero_grad()
        sum(problem.terms().values()).backward()
        optimizer.step()
    assert not problem.teacher.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in problem.teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in problem.teacher.parameters())
    still = {id(p) for p, old in zip(problem.trainable(), start, strict=True) if torch.equal(p, old)}
    assert not still & set(own)
    moving = {key: p for key, p in problem.student.named_parameters() if p.requires_grad}
    assert [key for key, p in moving.items() if id(p) in still and not WITHOUT_GRADIENT.search(key)] == []


@pytest.mark.parametrize("name", ALL)
def test_what_the_registry_says_is_complete(name):
    method = method_class(name)
    assert method.paper
    assert method.__doc__
    cited = name == "ce" or "arXiv:" in method.paper or "doi" in method.paper or "CVPR" in method.paper
    assert cited, "paper: should have an arXiv number or a DOI; of a method of your own, those of what it is made of"


ONE_SAMPLE = {
    "posterior": "ensemble", "samples": 1, "dropout": None, "teacher_temperature": 4.0, "student_temperature": 4.0,
}  # fmt: skip

# What the distillation terms are when student and teacher are the same network. With these settings: nothing.
NOTHING = {
    "abkd": {}, "at": {}, "bayesian": ONE_SAMPLE, "bikd": {}, "catkd": {},
    "ckd": {}, "cmkd": {}, "ctkd": {}, "dist": {}, "dive": {"power": 1.0}, "dkd": {}, "kd": {},
    "kdiga": {"norm": "squared"},
    "lskd_dkd": {}, "lskd_kd": {}, "lskd_mlkd": {}, "ltkd": {"rebalancing": "none"}, "mlkd": {}, "nst": {},
    "bkd": {"effective_number_beta": 0.0}, "exopd": {"reward_scale": 1.0}, "mixkd": {"student_mixup_weight": 0.0},
    "pkt": {}, "redistill": {}, "rkd": {}, "rlkd": {}, "skd": {"variant": "curriculum"}, "sp": {},
    "cckd": {"student_prior": -1.0}, "ssd": {}, "tcl": {},
}  # fmt: skip
# Others have a known value, which does not depend on the student any more.
KNOWN = {
    "deit_lt": lambda p: -p.method.weight * p.logits.log_softmax(1).amax(1).mean(),
    "gkl": lambda p: p.method.alpha * -(p.soft * p.soft.log()).sum(1).mean(),
    "ikl": lambda p: p.method.alpha * -(p.soft * p.soft.log()).sum(1).mean(),
    "balanced_posterior": lambda p: (
        p.method.weight
        * losses.balanced_posterior_kd(
            p.logits, torch.stack((p.logits, *p.batch.extra_logits)), CLASS_COUNTS, temperature=p.method.temperature
        )
    ),
    "xerm": lambda p: (
        p.method.weight * losses.xerm(p.logits, p.logits, p.batch.labels, CLASS_COUNTS, gamma=p.method.gamma)
    ),
    "nkd": lambda p: (
        -(p.of_target * p.of_target.log()).mean()
        - p.method.gamma * p.method.temperature**2 * (p.others * p.others.clamp_min(1e-300).log()).sum(1).mean()
    ),
    "wsl": lambda p: (
        p.method.weight * p.method.temperature**2 * -((1 - torch.e**-1) * p.soft * p.soft.log()).sum(1).mean()
    ),
}
# The rest compare through connectors of their own, which start at random: tests of their losses have equal inputs.
CONNECTED = {"cbd", "cc", "crd", "fitnet", "gml", "ofd", "okd", "reviewkd", "simkd", "vid"}


def test_every_method_says_what_equal_networks_give():
    assert sorted([*NOTHING, *KNOWN, *CONNECTED]) == DISTILLING


@pytest.mark.parametrize("name", sorted(NOTHING))
def test_equal_networks_have_nothing_to_distil(name):
    problem = make_problem(name, same=True, **NOTHING[name])
    terms = {key: term for key, term in problem.terms().items() if not key.startswith("task")}
    assert terms
    for key, term in terms.items():
        assert abs(term.item()) < 5e-3, key  # the 1e-8 of DIST's correlations shows in rare columns; others are exact


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_equal_networks_give_the_known_value(name):
    problem = make_problem(name, same=True)
    labels = problem.batch.labels.unsqueeze(1)
    with torch.no_grad():
        logits = problem.teacher(problem.batch.images).logits
    problem.logits = logits
    scaled = logits / getattr(problem.method, "temperature", 1.0)
    problem.of_target = logits.softmax(1).gather(1, labels)
    problem.others = scaled.scatter(1, labels, -torch.inf).softmax(1)
    problem.soft = scaled.softmax(1)
    terms = problem.terms()
    value = sum(term for key, term in terms.items() if key != "task")
    torch.testing.assert_close(value, KNOWN[name](problem), rtol=1e-5, atol=0)
