"""MixKD, KDIGA, Comparative KD: what is mixed, drawn and compared, and what each setting switches."""

import pytest
import torch
import torch.nn.functional as F

from ltkd import losses
from ltkd.methods.partners import draw_partners
from ltkd.models.output import ModelOutput

from .problem import BATCH_SIZE, make_problem

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 3, 5])


# partners


def test_a_cycle_makes_everyone_a_partner_as_often_and_never_of_itself():
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        partners = draw_partners(LABELS, 2, "permutation")
        assert partners.shape == (8, 2)
        for column in partners.unbind(1):
            assert sorted(column.tolist()) == list(range(8))
        assert (partners != torch.arange(8).unsqueeze(1)).all()
        assert torch.equal(partners[:, 1], partners[partners[:, 0], 0])  # the next but one is the next of the next
        seen.add(tuple(partners.flatten().tolist()))
    assert len(seen) == 20


def test_balanced_partners_are_of_every_class_alike_and_of_every_image_of_it():
    torch.manual_seed(0)
    draws = 4000
    partners = torch.cat([draw_partners(LABELS, draws // 8, "class_balanced").flatten() for _ in range(8)])
    shares = torch.bincount(partners, minlength=8) / len(partners)
    expected = torch.tensor([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1, 1, 1]) / 5
    torch.testing.assert_close(shares, expected, atol=4 * 0.5 / len(partners) ** 0.5, rtol=0)


def test_a_batch_of_one_is_its_own_partner():
    for partner in ("permutation", "class_balanced"):
        assert draw_partners(torch.tensor([3]), 1, partner).tolist() == [[0]]


# MixKD


def mixkd_draws(problem):
    """lam and the partners that the next step will draw, with the generator left as it was."""
    state = torch.get_rng_state()
    lam = torch.distributions.Dirichlet(problem.method._concentration).sample()[0]
    partner = draw_partners(problem.batch.labels, 1, problem.method.partner).squeeze(1)
    torch.set_rng_state(state)
    return lam, partner


@pytest.mark.parametrize("distance", ["mse", "kl"])
@pytest.mark.parametrize("partner_choice", ["permutation", "class_balanced"])
def test_mixkd_is_the_sum_that_it_says(distance, partner_choice):
    settings = {"student_mixup_weight": 0.7, "teacher_mixup_weight": 1.3, "kd_weight": 0.4, "task_weight": 0.6}
    problem = make_problem("mixkd", distance=distance, partner=partner_choice, temperature=3.0, **settings)
    problem.student.eval()  # batch normalisation then sees nothing of a second pass
    torch.manual_seed(5)
    lam, partner = mixkd_draws(problem)
    terms = problem.terms()

    x, y = problem.batch.images, problem.batch.labels
    mixed = lam * x + (1 - lam) * x[partner]
    student, teacher = problem.student(mixed).logits, problem.teacher(mixed).logits
    label = lam * F.one_hot(y, 6) + (1 - lam) * F.one_hot(y[partner], 6)
    plain_student, plain_teacher = problem.student(x).logits, problem.teacher(x).logits

    def kl(s, t):
        p = (t / 3).softmax(1)
        return 9 * (p * (p.log() - (s / 3).log_softmax(1))).sum(1).mean()

    expected = {
        "task": 0.6 * F.cross_entropy(plain_student, y),
        "kd": 0.4 * kl(plain_student, plain_teacher),
        "student_mixup": 0.7 * -(label * student.log_softmax(1)).sum(1).mean(),
        "teacher_mixup": 1.3 * ((student - teacher).square().mean() if distance == "mse" else kl(student, teacher)),
    }
    assert 0 < lam < 1
    torch.testing.assert_close(terms, expected)


@pytest.mark.parametrize(
    ("weights", "terms", "passes"),
    [
        ((1.0, 0.0, 0.0), {"student_mixup"}, (1, 0)),
        ((0.0, 1.0, 0.0), {"teacher_mixup"}, (1, 1)),
        ((0.0, 0.0, 1.0), {"kd"}, (0, 0)),
    ],
)
def test_a_mixkd_weight_of_zero_switches_the_part_and_its_passes_off(weights, terms, passes, caplog):
    keys = ("student_mixup_weight", "teacher_mixup_weight", "kd_weight")
    problem = make_problem("mixkd", **dict(zip(keys, weights, strict=True)))
    calls = {"student": 0, "teacher": 0}
    networks = problem.method.networks

    def count(role, run):
        def counting(images):
            calls[role] += 1
            return run(images)

        object.__setattr__(networks, role, counting)

    count("student", networks.student)
    count("teacher", networks.teacher)
    assert set(problem.terms()) == {"task", *terms}
    assert (calls["student"], calls["teacher"]) == passes
    assert ("no image is mixed" in caplog.text) == (weights == (0.0, 0.0, 1.0))


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 8.0])
def test_lam_has_the_moments_of_its_beta_distribution(alpha):
    weights = {"kd_weight": 0.0, "student_mixup_weight": 0.0, "teacher_mixup_weight": 1.0}
    problem = make_problem("mixkd", mixup_alpha=alpha, dtype=torch.float32, **weights)
    # Lam is read off the mixed images of two images of constant pixels 0 and 1.
    batch, seen = problem.batch, []
    batch.images, batch.labels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.tensor([0, 1])
    output = ModelOutput(torch.zeros(2, 4))
    object.__setattr__(problem.method.networks, "teacher", lambda images: seen.append(images) or output)
    object.__setattr__(problem.method.networks, "student", lambda images: output)
    torch.manual_seed(0)
    for _ in range(200):
        problem.method.distill(output, output, batch)
    lam = torch.stack([images[1, 0, 0, 0] for images in seen])  # of 1 and its only possible partner, 0
    assert lam.isfinite().all()
    assert ((lam >= 0) & (lam <= 1)).all()
    variance = 1 / (4 * (2 * alpha + 1))
    assert lam.mean().item() == pytest.approx(0.5, abs=4 * (variance / 200) ** 0.5)
    assert lam.var().item() == pytest.approx(variance, rel=0.3)  # four deviations of 200 draws


# KDIGA


@pytest.mark.parametrize("norm", ["l2", "squared"])
def test_kdiga_is_the_sum_that_it_says(norm):
    problem = make_problem("kdiga", norm=norm, gradient_weight=0.3, kd_weight=0.5, task_weight=2.0, temperature=2.0)
    problem.student.eval()
    terms = problem.terms()
    x, y = problem.batch.images.requires_grad_(), problem.batch.labels
    student, teacher = problem.student(x).logits, problem.teacher(x).logits
    distance = []
    for b in range(BATCH_SIZE):  # one image's loss at a time: in eval mode it depends on that image alone
        gradients = [
            torch.autograd.grad(F.cross_entropy(z[b : b + 1], y[b : b + 1]), x, retain_graph=True)[0]
            for z in (student, teacher)
        ]
        norms = (gradients[0] - gradients[1]).flatten(1).norm(dim=1)
        assert norms[torch.arange(BATCH_SIZE) != b].sum() == 0
        distance.append(norms[b] ** (2 if norm == "squared" else 1))
    expected = {
        "task": 2.0 * F.cross_entropy(student, y),
        "kd": 0.5 * losses.kd(student, teacher, temperature=2.0),
        "gradient": 0.3 * torch.stack(distance).mean(),
    }
    torch.testing.assert_close(terms, expected)


def test_batch_normalisation_in_training_couples_the_images_gradients():
    """What the method's docstring says of them."""
    problem = make_problem("kdiga")
    x = problem.batch.images.requires_grad_()
    logits = problem.student.train()(x).logits
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits[:1], problem.batch.labels[:1]), x)
    assert gradient[1:].abs().sum() > 0


# Comparative KD


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("partner", ["permutation", "class_balanced"])
def test_ckd_is_the_sum_that_it_says(size, partner):
    settings = {"weight": 0.5, "label_weight": 0.25, "task_weight": 0.75}
    problem = make_problem("ckd", group_size=size, partner=partner, **settings)
    problem.student.eval()
    torch.manual_seed(4)
    others = draw_partners(LABELS, size - 1, partner).tolist()
    torch.manual_seed(4)
    terms = problem.terms()
    student, teacher = (network(problem.batch.images).logits for network in (problem.student, problem.teacher))
    one_hot = F.one_hot(LABELS, 6).double()
    num_positive = (size + 1) // 2
    distances = {"comparison": [], "label_comparison": []}
    for b in range(BATCH_SIZE):
        group = [b, *others[b]]
        comparisons = [
            sum(z[i] for i in group[:num_positive]) / num_positive
            - sum(z[i] for i in group[num_positive:]) / (size - num_positive)
            for z in (student, teacher, one_hot)
        ]
        distances["comparison"].append((comparisons[0] - comparisons[1]).square().mean())
        distances["label_comparison"].append((comparisons[0] - comparisons[2]).square().mean())
    expected = {
        "task": 0.75 * F.cross_entropy(student, LABELS),
        "comparison": 0.5 * torch.stack(distances["comparison"]).mean(),
        "label_comparison": 0.25 * torch.stack(distances["label_comparison"]).mean(),
    }
    torch.testing.assert_close(terms, expected)


def test_ckd_of_equal_networks_is_the_task_loss():
    terms = make_problem("ckd", same=True).terms()
    assert set(terms) == {"task", "comparison"}
    assert terms["comparison"].item() < 1e-20
