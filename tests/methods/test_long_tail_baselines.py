"""The recent long-tail baselines: what each makes of the losses, its statistics, and what it refuses."""

import copy
import itertools
import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ltkd import losses
from ltkd.errors import UserError
from ltkd.methods import build_method, method_class
from ltkd.methods.class_queue import ClassQueue, queue_slots
from ltkd.models.output import ModelOutput
from ltkd.task_losses import build_task_loss

from ..conftest import compose_values
from .problem import CLASS_COUNTS, make_problem


def settings_of(name, *overrides):
    values = compose_values(f"method={name}", *overrides)["method"]
    values.pop("name")
    return values


def make(name, context, task_loss="ce", **settings):
    return build_method(name, settings_of(name) | settings, context, build_task_loss(task_loss, context.class_counts))


@pytest.mark.parametrize("name", ["balanced_posterior", "bkd", "cckd", "deit_lt", "xerm"])
def test_classes_without_images_are_refused(context, name):
    counts = replace(context, class_counts=torch.tensor([9, 0, 3, 0, 2, 1]))
    with pytest.raises(UserError, match=rf"{name} needs a training image of every class; none of class 1, 3"):
        make(name, counts)


# GKL and IKL


@pytest.mark.parametrize("name", ["gkl", "ikl"])
def test_class_means_are_those_of_the_epoch_before(context, outputs, name):
    student, teacher, batch = outputs
    method = make(name, context, class_information=True, weight_temperature=2.0)
    first = method(student, teacher, batch)[name].item()
    assert torch.equal(method.class_means, torch.full((6, 6), 1 / 6))
    other = ModelOutput(teacher.logits.flip(0))
    method(student, other, batch)
    method.end_epoch(None)
    logits, labels = torch.cat((teacher.logits, other.logits)), batch.labels.repeat(2)
    expected = losses.class_mean_probabilities(logits, labels, temperature=2.0)
    torch.testing.assert_close(method.class_means, expected)
    assert method.counts.sum() == 0
    arguments = {"alpha": method.alpha, "beta": method.beta, "temperature": method.temperature}
    if name == "gkl":
        arguments["gamma"] = method.gamma
    value = getattr(losses, name)(student.logits, teacher.logits, batch.labels, expected, **arguments)
    torch.testing.assert_close(method(student, teacher, batch)[name], value)
    assert value.item() != pytest.approx(first, rel=1e-4)


def test_a_class_without_an_image_in_an_epoch_keeps_its_row(context, outputs):
    student, teacher, batch = outputs
    batch.labels = batch.labels % 4
    method = make("gkl", context, class_information=True)
    method.class_means.copy_(torch.rand(6, 6))
    before = method.class_means.clone()
    absent = [4, 5]
    method(student, teacher, batch)
    method.end_epoch(None)
    assert torch.equal(method.class_means[absent], before[absent])
    assert not torch.equal(method.class_means, before)


def test_statistics_stand_still_in_evaluation(context, outputs):
    for name, buffer in (("gkl", "counts"), ("tcl", "seen")):
        method = make(name, context).eval()
        method(*outputs)
        assert getattr(method, buffer).sum() == 0


@pytest.mark.parametrize("name", ["gkl", "tcl"])
def test_statistics_are_in_the_checkpoint_within_an_epoch(context, outputs, name):
    one, two = make(name, context), make(name, context)
    one(*outputs)
    two.load_state_dict(one.state_dict())
    for method in (one, two):
        method(*outputs)
        method.end_epoch(None)
    for value, other in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(value, other)


# settings: alpha, beta, gamma, class information
GKL_PAIRS = {
    ("resnet32x4", "resnet8x4"): (1.0, 16.0, 0.05, True),
    ("resnet56", "resnet20"): (1.0, 4.0, 0.2, True),
    ("resnet110", "resnet32"): (1.0, 4.0, 0.1, False),
    ("vgg13", "vgg8"): (1.0, 8.0, 0.2, True),
    ("vgg13", "mobilenetv2"): (4.0, 12.0, 0.1, True),
    ("wrn_40_2", "wrn_16_2"): (3.0, 20.0, 0.3, False),
    ("wrn_40_2", "wrn_40_1"): (1.0, 12.0, 0.3, False),
    ("resnet50", "mobilenetv2"): (1.0, 8.0, 0.05, True),
    ("wrn_40_2", "shufflenetv1"): (1.0, 8.0, 0.0, False),
    ("resnet32x4", "shufflenetv1"): (1.0, 8.0, 0.0, True),
    ("resnet32x4", "shufflenetv2"): (3.0, 12.0, 0.1, True),
}


@pytest.mark.parametrize("pair", GKL_PAIRS, ids="-".join)
def test_gkl_settings_of_each_pair(pair):
    values = settings_of("gkl", f"teacher={pair[0]}", f"student={pair[1]}")
    assert tuple(values[key] for key in ("alpha", "beta", "gamma", "class_information")) == GKL_PAIRS[pair]
    assert values["temperature"] == values["weight_temperature"] == 4.0


# xERM


def test_xerm_is_its_loss_alone_and_logs_the_weights(context, outputs):
    student, teacher, batch = outputs
    method = make("xerm", context)
    terms = method(student, teacher, batch)
    assert terms["task"].item() == 0
    arguments = (teacher.logits, batch.labels, context.class_counts)
    torch.testing.assert_close(terms["xerm"], losses.xerm(student.logits, *arguments, gamma=1.5))
    shares = losses.xerm_weights(*arguments, gamma=1.5)
    assert method.figures["soft_label_share"][:, 0].sum().item() == pytest.approx(shares.sum().item(), rel=1e-5)


# class-conditional KD


def test_the_teachers_prior_is_its_mean_prediction(context, outputs):
    student, teacher, batch = outputs
    method = make("cckd", context, teacher_prior="predictions")
    assert method.needs_teacher_statistics
    assert not make("cckd", context).needs_teacher_statistics
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    logits[:, 5] = -100.0  # never predicted
    labels = torch.arange(50) % 6
    method.prepare(logits, labels)
    prior = torch.stack([logits[labels == c].softmax(1).mean(0) for c in range(6)]).mean(0)
    torch.testing.assert_close(method.prior[:5], prior[:5])
    assert method.prior[5].item() == pytest.approx(1e-4)
    expected = losses.kd(student.logits, teacher.logits - method.prior.log(), temperature=2.0)
    torch.testing.assert_close(method(student, teacher, batch)["corrected_kd"], expected)


def test_the_label_prior_is_a_logit_adjustment_of_the_teacher(context, outputs):
    student, teacher, batch = outputs
    value = make("cckd", context)(student, teacher, batch)["corrected_kd"]
    adjusted = teacher.logits - context.class_counts.log()
    torch.testing.assert_close(value, losses.kd(student.logits, adjusted, temperature=2.0))


# the balanced posterior


def test_the_correction_is_within_both_terms(context, outputs):
    """The student's logits minus the log prior have the objective that KD and cross-entropy have of the logits."""
    student, teacher, batch = outputs
    method = make("balanced_posterior", context, teachers=1, weight=3.0, temperature=2.0)
    log_prior = (context.class_counts / context.class_counts.sum()).log()
    terms = method(ModelOutput(student.logits - log_prior), teacher, batch)
    torch.testing.assert_close(terms["task"], losses.cross_entropy(student.logits, batch.labels))
    torch.testing.assert_close(terms["kd"], 3 * losses.kd(student.logits, teacher.logits, temperature=2.0))
    batch.extra_logits = (teacher.logits.flip(0),)
    both = torch.stack((teacher.logits, teacher.logits.flip(0)))
    expected = losses.bayesian_teacher(student.logits, both, teacher_temperature=2.0, student_temperature=2.0)
    torch.testing.assert_close(method(ModelOutput(student.logits - log_prior), teacher, batch)["kd"], 3 * expected)


def test_the_balanced_posterior_makes_up_for_the_sampler_of_each_epoch(context, outputs):
    student, teacher, batch = outputs
    number = len(context.class_counts)

    def drawn(epoch):
        return (torch.arange(number) + epoch).double() / (torch.arange(number) + epoch).sum()

    method = make("balanced_posterior", replace(context, drawn=drawn), teachers=1, weight=3.0, temperature=2.0)
    buffer = method.drawn
    log_prior = (context.class_counts / context.class_counts.sum()).log()
    for epoch in (1, 2, 7):
        method.start_epoch(epoch)
        log_drawn = drawn(epoch).log().float()
        terms = method(ModelOutput(student.logits - log_drawn), teacher, batch)
        torch.testing.assert_close(terms["task"], losses.cross_entropy(student.logits, batch.labels))
        under = teacher.logits + log_drawn - log_prior
        torch.testing.assert_close(terms["kd"], 3 * losses.kd(student.logits, under, temperature=2.0))
        assert method.drawn is buffer  # at its place, where a captured step reads it


def test_the_teachers_of_the_balanced_posterior_and_its_task_loss(context):
    method = method_class("balanced_posterior")
    assert method.extra_teachers({"seed": 4, "checkpoint": None}, {}, {"teachers": 3}) == [{"seed": 5}, {"seed": 6}]
    assert method.extra_teachers({"seed": 4, "checkpoint": "a.pt"}, {}, {"teachers": 1}) == []
    with pytest.raises(UserError, match=r"method\.teachers: more than one are trained"):
        method.extra_teachers({"seed": 4, "checkpoint": "a.pt"}, {}, {"teachers": 2})
    with pytest.raises(UserError, match=r"student\.task_loss: method balanced_posterior corrects .* itself; use ce"):
        make("balanced_posterior", context, "balanced_softmax")


# hard distillation


def test_class_weights_come_after_the_deferral(context, outputs):
    student, teacher, batch = outputs
    method = make("deit_lt", context)
    arguments = {
        "student_logits": student.logits, "teacher_logits": teacher.logits, "target": batch.labels,
        "class_counts": context.class_counts, "alpha": 0.5, "beta": 0.9999,
    }  # fmt: skip
    for epoch, weighted in ((1, False), (8, False), (9, True), (10, True)):
        method.start_epoch(epoch)
        expected = losses.deferred_hard_distillation(**arguments, weighted=weighted)
        torch.testing.assert_close(sum(method(student, teacher, batch).values()), expected)


# trust gate


def test_class_accuracies_are_an_average_over_epochs(context, outputs):
    student, teacher, batch = outputs
    method = make("tcl", context, momentum=0.75)
    right = teacher.logits.argmax(1) == batch.labels
    kd = losses.kd_per_image(student.logits, teacher.logits, temperature=4.0)
    torch.testing.assert_close(method(student, teacher, batch)["trusted_kd"], (kd * right).mean())  # all weights 1
    method(ModelOutput(3 * torch.eye(6)[batch.labels]), teacher, batch)  # an epoch's second batch, all right
    hits = (student.logits.argmax(1) == batch.labels).float() + 1
    method.end_epoch(None)
    for c in range(6):
        seen = batch.labels == c
        expected = 0.25 * hits[seen].mean().item() / 2 if seen.any() else 0.0
        assert method.class_accuracy[c].item() == pytest.approx(expected)
    weights = losses.accuracy_weights(method.class_accuracy)[batch.labels]
    torch.testing.assert_close(method(student, teacher, batch)["trusted_kd"], (kd * right * weights).mean())


# two heads


def test_the_deployed_head_sees_no_label_and_the_hard_head_no_teacher():
    problem = make_problem("ssd")
    method, student, classifier = problem.method, problem.student, problem.student.classifier
    terms = problem.terms()
    of_task = torch.autograd.grad(
        terms["task"], [classifier.weight, method.hard_head.weight], allow_unused=True, retain_graph=True
    )
    of_kd = torch.autograd.grad(
        terms["kd"], [classifier.weight, method.hard_head.weight], allow_unused=True, retain_graph=True
    )
    assert of_task[0] is None
    assert of_kd[1] is None
    assert of_task[1].abs().sum() > 0
    assert of_kd[0].abs().sum() > 0
    output, teacher = student(problem.batch.images), problem.teacher(problem.batch.images)
    expected = losses.two_head_distillation(
        method.hard_head(output.embedding), output.logits, teacher.logits, problem.batch.labels, temperature=2.0
    )
    torch.testing.assert_close(sum(problem.terms().values()), expected)
    assert not [name for name in student.state_dict() if "hard_head" in name]


def test_two_heads_need_a_linear_classifier_and_an_embedding(context):
    with pytest.raises(UserError, match="hard head of method ssd is linear"):
        make("ssd", context, "ldam")
    with pytest.raises(UserError, match="needs the pooled vector"):
        make("ssd", replace(context, student=ModelOutput(torch.zeros(2, 6))))


# class-balanced distillation


def test_cbd_is_its_loss_between_the_projected_and_the_teachers_vectors():
    problem = make_problem("cbd")
    output, teacher = problem.student(problem.batch.images), problem.teacher(problem.batch.images)
    whole = losses.class_balanced_distillation(
        problem.method.projection(output.embedding).relu(), output.logits, [3 * teacher.embedding],
        problem.batch.labels, alpha=0.4, beta=100.0,
    )  # fmt: skip
    torch.testing.assert_close(sum(problem.terms().values()), whole)


# GML


@pytest.mark.parametrize(("size", "per_class"), [(4096, 2), (20, 2), (12, 2), (31, 3)])
def test_every_class_has_its_slots_and_a_share_of_the_rest(size, per_class):
    counts = [100, 50, 25, 12, 6, 3]
    slots = queue_slots(counts, size, per_class)
    assert sum(slots) == size
    ends, seen = [], 0
    for c, count in enumerate(counts):
        seen += count
        ends.append(math.ceil(Fraction(per_class * (c + 1)) + Fraction((size - 6 * per_class) * seen, sum(counts))))
    assert list(itertools.accumulate(slots)) == ends
    assert min(slots) >= per_class
    with pytest.raises(UserError, match=r"method\.queue_size: 6 classes with 2 slots each need 12, got 11"):
        queue_slots(counts, 11, 2)


def test_the_queue_keeps_the_latest_of_each_class():
    torch.manual_seed(0)
    queue = ClassQueue([3, 2, 4], 5)
    starts, sizes, at = [0, 3, 5], [3, 2, 4], [0, 0, 0]
    expected = [(-1, queue.vectors[k].clone()) for k in range(9)]
    for step in range(6):
        labels, vectors = torch.randint(3, (7,)), torch.randn(7, 5)
        index = torch.arange(7) + 7 * step
        queue.push(vectors, labels, index)
        new = {0: [], 1: [], 2: []}
        for label, vector, row in zip(labels.tolist(), vectors, index.tolist(), strict=True):
            if len(new[label]) < sizes[label]:
                new[label].append((row, vector))
        for label, entries in new.items():
            for entry in entries:
                expected[starts[label] + at[label]] = entry
                at[label] = (at[label] + 1) % sizes[label]
        assert queue.index.tolist() == [row for row, _ in expected]
        assert torch.equal(queue.vectors, torch.stack([vector for _, vector in expected]))
        assert queue.pointers.tolist() == at
    assert queue.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_gml_is_its_losses_on_the_queue_and_the_temperature_learns_alone():
    problem = make_problem("gml", queue_size=30, kd_weight=2.0, contrast_weight=3.0)
    method, batch = problem.method, problem.batch
    terms = problem.terms()
    assert set(method.queue.index.tolist()) - {-1} <= set(batch.index.tolist())
    assert (method.queue.index >= 0).any()
    own = [*problem.student.parameters(), *method.parameters()]
    of = {
        name: torch.autograd.grad(terms[name], own, allow_unused=True, retain_graph=True)
        for name in ("contrast", "temperature")
    }
    learnt = {id(p) for p, g in zip(own, of["temperature"], strict=True) if g is not None}
    assert learnt == {id(method.log_temperature)}
    reached = {id(p) for p, g in zip(own, of["contrast"], strict=True) if g is not None and g.abs().sum() > 0}
    assert id(method.log_temperature) not in reached
    for part in (problem.student.convolutions[0], method.student_projection[0], method.teacher_projection[0]):
        assert id(part.weight) in reached

    before = method.queue.vectors.clone()
    method.eval()  # as it is: no image enters, and projections by running statistics can be compared
    problem.student.eval()
    terms = problem.terms()
    assert torch.equal(method.queue.vectors, before)
    query = method.student_projection(problem.student(batch.second_view).embedding)
    keys = method.teacher_projection(before)
    torch.testing.assert_close(query.norm(dim=1), torch.ones(8).double())
    loss = losses.queue_contrast(query, keys, batch.labels, method.queue.labels, CLASS_COUNTS, temperature=0.1)
    torch.testing.assert_close(terms["contrast"], 3 * loss)
    output, teacher = problem.student(batch.images), problem.teacher(batch.images)
    torch.testing.assert_close(terms["kd"], 2 * losses.kd(output.logits, teacher.logits, temperature=4.0))


# BiKD


def bikd_problem(**settings):
    problem = make_problem("bikd", **settings)
    problem.method.start_epoch(1)
    return problem


def test_the_hyper_gradient_is_a_finite_difference_of_the_look_ahead():
    problem = bikd_problem(hidden_layers=1)
    method, batch = problem.method, problem.batch
    output, teacher = problem.student(batch.images), problem.teacher(batch.images)
    terms = losses.hard_soft_terms(output.logits, teacher.logits, batch.labels, temperature=4.0)
    seen = torch.rand(8, 2, generator=torch.Generator().manual_seed(0)).double()
    held_out = (method.held_out.whole(torch.arange(12)), method.held_out.labels)

    def ahead(parameters):
        return method.look_ahead(terms, method.weigh(seen, parameters), *held_out)

    start = {name: p.detach().clone().requires_grad_() for name, p in method.network.named_parameters()}
    gradients = torch.autograd.grad(ahead(start), list(start.values()))
    assert any(gradient.abs().max() > 1e-6 for gradient in gradients)
    for (name, value), gradient in zip(start.items(), gradients, strict=True):
        position = gradient.abs().argmax()  # the largest of each tensor
        moved = []
        for sign in (1, -1):
            other = value.detach().clone()
            other.view(-1)[position] += sign * 1e-4
            moved.append(ahead(start | {name: other}).item())
        difference = (moved[0] - moved[1]) / 2e-4
        assert difference == pytest.approx(gradient.view(-1)[position].item(), rel=1e-4, abs=1e-10)


def test_the_look_ahead_is_that_of_a_step_of_the_student():
    problem = bikd_problem()
    method, batch = problem.method, problem.batch
    buffers = {name: buffer.clone() for name, buffer in problem.student.named_buffers()}
    output, teacher = problem.student(batch.images), problem.teacher(batch.images)
    terms = losses.hard_soft_terms(output.logits, teacher.logits, batch.labels, temperature=4.0)
    weights, rows = torch.rand(8, 2).double(), torch.arange(12)
    after_forward = {name: buffer.clone() for name, buffer in problem.student.named_buffers()}
    loss = method.look_ahead(terms, weights, method.held_out.whole(rows), method.held_out.labels)
    for name, buffer in problem.student.named_buffers():  # the look-ahead leaves them alone
        assert torch.equal(buffer, after_forward[name])
        assert "running_mean" not in name or not torch.equal(buffer, buffers[name])
    assert all(parameter.grad is None for parameter in problem.student.parameters())

    objective = losses.weighted_hard_soft(
        problem.student(batch.images).logits, teacher.logits, batch.labels, weights, temperature=4.0
    )
    objective.backward()
    torch.optim.SGD(problem.student.parameters(), lr=0.1).step()
    expected = losses.cross_entropy(problem.student(method.held_out.whole(rows)).logits, method.held_out.labels)
    torch.testing.assert_close(loss, expected)


def test_the_weighing_network_steps_once_in_several_and_an_epoch_drops_the_rest():
    problem = bikd_problem(accumulation=3)
    method = problem.method

    def weights():
        return [parameter.clone() for parameter in method.network.parameters()]

    start, moved = weights(), []
    for _ in range(7):
        problem.terms()
        moved.append(any(not torch.equal(a, b) for a, b in zip(start, weights(), strict=True)))
        start = weights()
    assert moved == [False, False, True, False, False, True, False]
    assert (method.collected, method.position) == (1, 7 * 12)
    method.end_epoch(None)
    assert (method.collected, method.position) == (0, 0)
    assert all(parameter.grad is None for parameter in method.network.parameters())


def test_bikd_reads_nothing_back_in_a_step_without_adam():
    read = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.is_nonzero):
                read.append(function)
            return function(*args, **(kwargs or {}))

    problem = bikd_problem(accumulation=3)
    problem.terms()
    with Reads():
        problem.terms()
        assert read == []
        bool(problem.method.collected == 2)  # such a look is seen
    assert len(read) == 1


def test_bikd_goes_on_in_the_middle_of_a_group():
    one, two = bikd_problem(accumulation=3), bikd_problem(accumulation=3)
    for _ in range(4):
        one.terms()
    two.method.load_state_dict(copy.deepcopy(one.method.state_dict()))
    two.student.load_state_dict(one.student.state_dict())
    for problem in (one, two):
        for _ in range(3):
            problem.terms()
    for name, value in one.method.network.state_dict().items():
        assert torch.equal(two.method.network.state_dict()[name], value)


def test_bikd_needs_held_out_images_and_plain_cross_entropy(context):
    with pytest.raises(UserError, match=r"no validation split; set dataset\.validation_per_class"):
        make("bikd", context)
    for task_loss in ("balanced_softmax", {"name": "ce", "label_smoothing": 0.1}):
        with pytest.raises(UserError, match="method bikd weighs the cross-entropy of each image"):
            make("bikd", context, task_loss)


@pytest.mark.parametrize(
    ("setting", "said"),
    [("recipe.sam=0.1", "recipe.sam: takes each step twice"), ("run.step=compile", "run.step: comp")],
)
def test_what_bikd_does_not_go_with_is_said(make_config, setting, said):
    make_config("method=bikd")
    with pytest.raises(UserError, match=said):
        make_config("method=bikd", setting)
