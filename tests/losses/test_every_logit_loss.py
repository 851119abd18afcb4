"""What holds for every distillation loss on logits: derivatives, invariances, and inputs at the edge."""

import pytest
import torch
from torch.autograd import gradcheck

from ltkd import losses

B, C = 6, 7


def counts(num_classes):
    return 3 * torch.arange(num_classes, 0, -1) ** 2


LOSSES = {
    "kd_per_image": lambda s, t, y: losses.kd_per_image(s, t, temperature=2.0).mean(),
    "standardized kd": lambda s, t, y: losses.kd(losses.standardize(s), losses.standardize(t), temperature=2.0),
    "nkd": lambda s, t, y: losses.nkd(s, t, y, gamma=1.5, temperature=2.0),
    "wsl": lambda s, t, y: losses.weighted_soft_labels(s, t, y, weight=2.25, temperature=2.0),
    "balanced_kd": lambda s, t, y: losses.balanced_kd(
        s, t, counts(s.shape[1]), temperature=2.0, effective_number_beta=0.999
    ),
    "dive": lambda s, t, y: losses.dive(s, t, temperature=2.0, power=0.5),
    "dist": lambda s, t, y: losses.dist(s, t, beta=2.0, gamma=1.0, temperature=2.0),
    "dist scale-free": lambda s, t, y: losses.dist(s, t, beta=2.0, gamma=1.0, temperature=2.0, scale_free=True),
    "mlkd_instance": lambda s, t, y: losses.mlkd_instance(s, t, temperatures=[1.0, 4.0]),
    "mlkd_batch": lambda s, t, y: losses.mlkd_batch(s, t, temperatures=[1.0, 4.0]),
    "mlkd_class": lambda s, t, y: losses.mlkd_class(s, t, temperatures=[1.0, 4.0]),
    "correlation_matching": lambda s, t, y: losses.correlation_matching(
        s, t, losses.normalized_entropy(t, temperature=2.0), temperature=2.0, rank_strength=2.0
    ),
    "soft_spearman": lambda s, t, y: losses.soft_spearman(s, t, strength=1.0),
    "ranking_loss": lambda s, t, y: losses.ranking_loss(s, t, k=3, strength=1.0),
    "overlap_weighted_kd": lambda s, t, y: losses.overlap_weighted_kd(s, t, k=3, temperature=2.0),
} | {
    f"alpha_beta {a} {b}": lambda s, t, y, a=a, b=b: losses.alpha_beta_divergence(
        s, t, alpha=a, beta=b, temperature=2.0
    )
    for a, b in ((0.8, 0.3), (1.0, 0.0), (0.0, 1.0), (0.7, 0.0), (0.0, 0.0), (0.5, -0.5), (-0.3, 1.2), (1.5, -0.2))
}  # fmt: skip
OF_THE_BATCH = ("dist", "dist scale-free", "mlkd_batch", "mlkd_class")  # an image's part depends on the others
EVERY = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
PER_IMAGE = pytest.mark.parametrize(
    "loss", [loss for name, loss in LOSSES.items() if name not in OF_THE_BATCH],
    ids=[name for name in LOSSES if name not in OF_THE_BATCH],
)  # fmt: skip
# the weights, which have no gradient of their own, are functions of the student's logits
SMOOTH = pytest.mark.parametrize(
    "loss", [loss for name, loss in LOSSES.items() if name != "wsl"], ids=[name for name in LOSSES if name != "wsl"]
)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, B, C, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher, torch.tensor([0, 6, 3, 3, 1, 2])


@SMOOTH
def test_derivatives(logits, loss):
    student, teacher, target = logits
    assert gradcheck(lambda z: loss(z, teacher, target), student)


@EVERY
def test_no_gradient_reaches_the_teacher(logits, loss):
    student, teacher, target = logits
    teacher = teacher.requires_grad_()
    loss(student, teacher, target).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@EVERY
def test_a_constant_on_all_logits_of_an_image_changes_nothing(logits, loss):
    student, teacher, target = logits
    shift = torch.linspace(-5, 5, B, dtype=torch.float64).unsqueeze(1)
    moved = loss(student + shift, teacher - 2 * shift, target)
    torch.testing.assert_close(moved, loss(student, teacher, target))


@EVERY
def test_the_order_of_the_batch_does_not_matter(logits, loss):
    student, teacher, target = logits
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(loss(student[order], teacher[order], target[order]), loss(student, teacher, target))


@EVERY
def test_the_order_of_the_classes_does_not_matter(logits, loss):
    student, teacher, target = logits
    if loss is LOSSES["balanced_kd"]:  # it knows the classes by their counts
        return
    order = torch.tensor([3, 0, 5, 1, 4, 2, 6])
    renamed = order.argsort()[target]
    torch.testing.assert_close(loss(student[:, order], teacher[:, order], renamed), loss(student, teacher, target))


@PER_IMAGE
def test_halves_of_a_batch_average_to_the_whole(logits, loss):
    student, teacher, target = logits
    halves = [loss(student[part], teacher[part], target[part]) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, loss(student, teacher, target))


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_statistics_of_the_batch_do_not_average(logits, name):
    student, teacher, target = logits
    halves = [LOSSES[name](student[part], teacher[part], target[part]) for part in (slice(0, 3), slice(3, 6))]
    assert abs(sum(halves) / 2 - LOSSES[name](student, teacher, target)) > 1e-3


CROSS_ENTROPIES = ("nkd", "wsl")  # their value contains the teacher's entropy
CHANGED_TEACHER = ("balanced_kd", "dive")  # their target is not the teacher itself


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in (*CROSS_ENTROPIES, *CHANGED_TEACHER)])
def test_zero_without_gradient_where_the_student_equals_the_teacher(logits, name):
    _, teacher, target = logits
    student = teacher.clone().requires_grad_()
    value = LOSSES[name](student, teacher, target)
    value.backward()
    assert abs(value.item()) < 1e-5  # DIST's 1e-8 in the denominator
    assert student.grad.abs().max() < 1e-5


SOME = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
EDGES = {
    "one image": (torch.tensor([[1.0, 0.0, -2.0]]), torch.tensor([[0.0, 2.0, -1.0]]), [1]),
    "two classes": (torch.tensor([[1.0, 0.0], [0.5, 2.0]]), torch.tensor([[0.0, 2.0], [1.0, 0.0]]), [1, 0]),
    "one image of two classes": (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), [0]),
    "equal student": (torch.zeros(3, 4), SOME, [0, 1, 2]),
    "equal teacher": (SOME, torch.zeros(3, 4), [0, 1, 2]),
    "both equal": (torch.full((3, 4), 2.0), torch.zeros(3, 4), [0, 1, 2]),
    "one-hot teacher": (SOME, 1e4 * torch.eye(4)[:3], [0, 1, 3]),
    "one-hot student, wrong": (1e4 * torch.eye(4)[[1, 2, 3]], SOME, [0, 1, 2]),
    "opposite and sure": (1e4 * torch.eye(4)[[1, 2, 3]], 1e4 * torch.eye(4)[[0, 1, 2]], [0, 1, 2]),
    "huge": (
        1e4 * torch.tensor([[1.0, -1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]]),
        1e4 * torch.tensor([[-1.0, 1, 1, -1], [1, -1, -1, 1], [-1, 1, -1, -1]]),
        [1, 1, 0],
    ),
    "the same image twice": (torch.tensor([[1.0, 0, 2]] * 2), torch.tensor([[0.0, 1, 3]] * 2), [2, 2]),
}  # fmt: skip


@EVERY
@pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_finite(loss, edge, dtype):
    student, teacher, target = edge
    student = student.to(dtype, copy=True).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher.to(dtype), torch.tensor(target))
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


@EVERY
def test_half_precision_is_computed_in_float32(logits, loss):
    student, teacher, target = logits
    student, teacher = student.detach().bfloat16(), teacher.bfloat16()
    if loss is LOSSES["standardized kd"]:  # two calls: the z-scores between them are float32 either way
        return
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher, target)
    torch.testing.assert_close(value, loss(student.float(), teacher.float(), target), rtol=0, atol=0)


def scaled(name, c):
    """The loss at a temperature multiplied by c."""
    t = 2.0 * c
    return {
        "kd_per_image": lambda s, z, y: losses.kd_per_image(s, z, temperature=t).mean(),
        "balanced_kd": lambda s, z, y: losses.balanced_kd(s, z, counts(C), temperature=t, effective_number_beta=0.999),
        "dive": lambda s, z, y: losses.dive(s, z, temperature=t, power=0.5),
        "dist": lambda s, z, y: losses.dist(s, z, beta=2.0, gamma=1.0, temperature=t),
        "mlkd_instance": lambda s, z, y: losses.mlkd_instance(s, z, temperatures=[c, 4 * c]),
        "mlkd_batch": lambda s, z, y: losses.mlkd_batch(s, z, temperatures=[c, 4 * c]),
        "mlkd_class": lambda s, z, y: losses.mlkd_class(s, z, temperatures=[c, 4 * c]),
        "alpha_beta 0.8 0.3": lambda s, z, y: losses.alpha_beta_divergence(s, z, alpha=0.8, beta=0.3, temperature=t),
        "nkd": lambda s, z, y: losses.nkd(s, z, y, gamma=1.5, temperature=t),
        "wsl": lambda s, z, y: losses.weighted_soft_labels(s, z, y, weight=2.25, temperature=t),
    }[name]


SCALING = {"kd_per_image": 2, "balanced_kd": 2, "dive": 2, "dist": 2, "mlkd_instance": 2}
SCALING |= {"mlkd_batch": 0, "mlkd_class": 0, "alpha_beta 0.8 0.3": 0}


@pytest.mark.parametrize(("name", "power"), SCALING.items())
def test_logits_and_temperature_times_c_give_the_factor_of_t_squared(logits, name, power):
    student, teacher, target = logits
    value = scaled(name, 3.0)(3 * student, 3 * teacher, target)
    torch.testing.assert_close(value, 3.0**power * scaled(name, 1.0)(student, teacher, target))


@pytest.mark.parametrize("name", ["nkd", "wsl"])
def test_parts_at_temperature_one_do_not_follow(logits, name):
    student, teacher, target = logits
    value = scaled(name, 3.0)(3 * student, 3 * teacher, target)
    assert abs(value / (9 * scaled(name, 1.0)(student, teacher, target)) - 1) > 0.01
