"""The feature, relation and contrastive methods on real networks: parameters, pairs of any kind, what is refused."""

import copy
import logging
from functools import partial

import pytest
import torch
from torch import nn

from ltkd import losses
from ltkd.errors import UserError
from ltkd.methods.feature import _hint_regressor
from ltkd.methods.network_features import pair_stages
from ltkd.models import build_model, count_parameters
from ltkd.models.classifier import CosineClassifier
from ltkd.models.output import ModelOutput

from ..conftest import compose_values
from .real_pair import Pair

MAPS = ["fitnet", "at", "nst", "vid", "ofd", "sp", "reviewkd", "simkd", "catkd"]
VECTORS = ["cc", "rkd", "pkt", "crd"]
METHODS = [*MAPS, *VECTORS]


def extra_parameters(method):
    return sum(parameter.numel() for parameter in method.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fitnet", 16_768), ("ofd", 86_912), ("vid", 258_496), ("cc", 65_792), ("crd", 65_792), ("reviewkd", 1_808_774)]
    + [(name, 0) for name in ("at", "sp", "nst", "rkd", "pkt", "simkd", "catkd")],
)
def test_extra_parameters_for_resnet32x4_to_resnet8x4(name, expected):
    assert extra_parameters(Pair(name, "resnet32x4", "resnet8x4", num_classes=100).method) == expected


def test_simkd_deploys_trunk_projector_and_the_teachers_classifier():
    pair = Pair("simkd", "resnet32x4", "resnet8x4", num_classes=100)
    assert count_parameters(pair.student.projector) == 214_016
    assert count_parameters(pair.student.classifier) == 25_700
    assert count_parameters(pair.student) == 1_233_540 - 25_700 + 214_016 + 25_700


def test_extra_parameters_of_reviewkd_for_another_pair():
    assert extra_parameters(Pair("reviewkd", "wrn_40_2", "wrn_16_2").method) == 453_830


def test_extra_parameters_of_reviewkd_for_the_fields_maps_of_resnet50_and_mobilenetv2():
    """Published for block sums of 12, 16, 48 and 160 channels; our mobilenetv2 hands out the maps after them."""
    pair = Pair("reviewkd", "resnet20", "resnet8")

    def output(channels, pooled):
        return ModelOutput(
            torch.zeros(2, 100),
            [torch.zeros(2, number, 4, 4) for number in channels],
            [torch.zeros(2, number, 4, 4) for number in channels],
            torch.zeros(2, pooled),
        )

    pair.context.student, pair.context.teacher = output((12, 16, 48, 160), 1280), output((256, 512, 1024, 2048), 2048)
    assert extra_parameters(pair.make_method(pair.context)) == 27_933_192


PAIRS = [
    ("wrn_16_2", "shufflenetv1"),  # widths that differ, larger maps at the teacher
    ("resnet18", "resnet8"),  # four stages and three
    ("vgg8", "mobilenetv2"),
    ("mobilenetv2", "resnet8"),  # much smaller maps at the teacher
    ("timm/resnet18", "resnet8"),  # five stages, no maps before the activation, no norms named
    ("resnet8", "timm/resnet18"),
]
# Two pairs for each method, in turn: every pair meets four methods or more.
TURNS = [(name, *PAIRS[(turn + shift) % len(PAIRS)]) for turn, name in enumerate(METHODS) for shift in (0, 3)]


@pytest.mark.parametrize(("name", "teacher", "student"), TURNS)
def test_any_pair_of_networks_trains(name, teacher, student):
    pair = Pair(name, teacher, student, size=16)
    before = copy.deepcopy(pair.teacher.state_dict())
    terms = pair.terms()
    sum(term for key, term in terms.items() if key != "task").backward()
    assert all(term.isfinite() for term in terms.values())
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in pair.student.parameters())
    assert all(parameter.grad is not None for parameter in pair.method.parameters())
    assert all(torch.equal(value, before[key]) for key, value in pair.teacher.state_dict().items())


def test_the_deepest_stages_are_paired_and_said_once(caplog):
    assert pair_stages("abcd", "xyz") == [("b", "x"), ("c", "y"), ("d", "z")]
    assert pair_stages("z", "abc") == [("z", "c")]
    with caplog.at_level(logging.WARNING):
        Pair("at", "resnet18", "resnet8")
    assert [record.message for record in caplog.records] == [
        "method at: resnet8 has 3 stages and resnet18 4; the last 3 of both are paired"
    ]


@pytest.mark.parametrize("name", ["ofd", "reviewkd"])
def test_maps_after_the_activation_stand_in_and_it_is_said(name, caplog):
    with caplog.at_level(logging.WARNING):
        pair = Pair(name, "timm/resnet18", "timm/resnet18")
    expected = "timm/resnet18 offers no maps before the stages' activations; those after them are used"
    roles = ("student", "teacher") if name == "ofd" else ("teacher",)
    assert [record.message for record in caplog.records] == [f"method {name}: {role} {expected}" for role in roles]
    assert all(term.isfinite() for term in pair.terms().values())


@pytest.mark.parametrize("name", [*VECTORS, "reviewkd"])
def test_a_network_without_pooled_vector_is_refused(name):
    pair = Pair(name, "resnet8", "resnet8", size=8)
    pair.context.teacher.embedding = None  # as of networks that add up several classifiers
    with pytest.raises(UserError, match=rf"method {name}: needs the pooled vector .* teacher resnet8 has none"):
        pair.make_method(pair.context)


@pytest.mark.parametrize("name", MAPS)
def test_a_network_without_maps_is_refused(name, monkeypatch):
    monkeypatch.setattr("ltkd.models.resnet.classify", lambda *args: ModelOutput(torch.zeros(2, 10)))
    with pytest.raises(UserError, match=rf"method {name}: needs feature maps, but student resnet8 has none"):
        Pair(name, "resnet14", "resnet8")


@pytest.mark.parametrize("name", ["simkd", "catkd"])
def test_a_classifier_that_is_not_on_the_mean_of_the_last_map_is_refused(name):
    message = rf"method {name}: needs a classifier on the mean of the last feature map; that of teacher timm/convnext"
    with pytest.raises(UserError, match=message):
        Pair(name, "timm/convnext_atto", "resnet8")


def test_a_cosine_classifier_has_no_class_activation_maps():
    pair = Pair("catkd", "resnet14", "resnet8")
    pair.teacher.classifier = CosineClassifier(64, 10, scale=30.0)
    with pytest.raises(UserError, match=r"method catkd: needs a linear classifier; that of teacher resnet14 .*Cosine"):
        pair.make_method(pair.new_context(10))


def test_simkd_reuses_a_cosine_classifier():
    pair = Pair("simkd", "resnet14", "resnet8")
    pair.teacher.classifier = CosineClassifier(64, 10, scale=30.0)
    pair.student = build_model("resnet8", 10)
    pair.method = pair.make_method(pair.new_context(10))
    pair.student = pair.method.adapt_student(pair.student)
    output = pair.student(pair.batch.images, features=True)
    torch.testing.assert_close(output.logits, pair.teacher.classifier(output.stages[-1].mean(dim=(2, 3))))


@pytest.mark.parametrize(
    ("heights", "kernel", "stride", "transposed"),
    [
        ((8, 8), 1, 1, False),
        ((16, 8), 3, 2, False),
        ((8, 16), 4, 2, True),
        ((10, 8), 3, 1, False),
        ((7, 8), 1, 1, False),
    ],
)
def test_fitnets_regressor_fits_the_teachers_height(heights, kernel, stride, transposed):
    student, teacher = torch.randn(2, 3, heights[0], heights[0]), torch.randn(2, 5, heights[1], heights[1])
    regressor = _hint_regressor(student, teacher)
    convolution = regressor[0]
    assert isinstance(convolution, nn.ConvTranspose2d) == transposed
    assert (convolution.kernel_size, convolution.stride) == ((kernel, kernel), (stride, stride))
    assert convolution.bias is not None
    height = min(heights) if heights == (7, 8) else heights[1]  # a little smaller: the teacher's is pooled instead
    assert regressor(student).shape == (2, 5, height, height)


def test_fitnets_stage_is_the_middle_or_a_number():
    assert Pair("fitnet", "resnet14", "resnet8").method.index == 1
    assert Pair("fitnet", "resnet18", "timm/resnet18").method.index == 1
    assert Pair("fitnet", "timm/resnet18", "timm/resnet10t").method.index == 2
    assert Pair("fitnet", "resnet14", "resnet8", stage=3).method.index == 2
    with pytest.raises(UserError, match=r"method.stage: should be at most 3 \(the paired stages\), got 4"):
        Pair("fitnet", "resnet14", "resnet8", stage=4)


def test_vids_scales_are_trained_from_the_initial_variance():
    method = Pair("vid", "resnet14", "resnet8", init_variance=2.0).method
    assert [len(scale) for scale in method.log_scales] == [16, 32, 64]
    for scale in method.log_scales:
        assert scale.requires_grad
        torch.testing.assert_close(nn.functional.softplus(scale) + method.eps, torch.full_like(scale, 2.0))
    with pytest.raises(UserError, match=r"method.init_variance: should be greater than method.eps"):
        Pair("vid", "resnet14", "resnet8", init_variance=1e-6)


def test_ofd_weighs_deeper_stages_more_and_takes_margins_from_the_norms():
    pair = Pair("ofd", "resnet14", "resnet8", weight=2.0)
    norm = pair.teacher.preact_norms[1]
    torch.testing.assert_close(pair.method.margin_1, losses.ofd_margin(norm.weight, norm.bias))
    student, teacher = (net(pair.batch.images, features=True) for net in (pair.student, pair.teacher))
    method = pair.method.eval()  # the connectors' norms give the same on both calls
    parts = [
        losses.ofd_partial_l2(connector(s), t, getattr(method, f"margin_{index}"))
        for index, (connector, s, t) in enumerate(
            zip(method.connectors, student.preact_stages, teacher.preact_stages, strict=True)
        )
    ]
    value = method(student, teacher, pair.batch)["ofd"]
    torch.testing.assert_close(value, 2 * (parts[0] / 4 + parts[1] / 2 + parts[2]))


def test_ofd_margins_are_the_first_batchs_where_no_norm_is_known():
    pair = Pair("ofd", "resnet14", "resnet8")
    method = pair.method = pair.make_method(pair.new_context(10, teacher_norms=None))
    assert method.margin_0.isnan().all()
    pair.terms()
    teacher_map = pair.teacher(pair.batch.images, features=True).preact_stages[0]
    for channel in range(16):
        values = teacher_map[:, channel]
        expected = values[values < 0].mean() if (values < 0).any() else torch.tensor(0.0)
        torch.testing.assert_close(method.margin_0[channel], expected)
    first = method.margin_0.clone()
    pair.batch.images = pair.batch.images * 2 + 1
    pair.terms()
    assert torch.equal(method.margin_0, first)
    assert "margin_0" in method.state_dict()


def test_catkd_trains_the_student_without_a_bias_that_its_file_still_has():
    pair = Pair("catkd", "resnet14", "resnet8")
    classifier = pair.student.classifier
    assert classifier.bias.abs().sum() == 0
    assert not classifier.bias.requires_grad
    pair.terms()["class_attention"].backward()
    assert classifier.weight.grad.abs().sum() > 0
    assert not list(pair.method.parameters())  # the classifiers are not its own
    assert pair.teacher.classifier.weight.grad is None


def test_catkd_is_zero_between_a_network_and_itself():
    pair = Pair("catkd", "resnet8", "resnet8")
    pair.student.load_state_dict(pair.teacher.state_dict())
    pair.student.eval()
    assert pair.terms()["class_attention"].item() < 1e-12


def over_stages(loss, s, t):
    """The sum over the three stages of resnet14 and resnet8, after their activations."""
    return loss(s.stages[0], t.stages[0]) + loss(s.stages[1], t.stages[1]) + loss(s.stages[2], t.stages[2])


def of_regressed_stages(m, s, t):
    return sum(
        losses.variational_information(m.regressors[i](s.stages[i]), t.stages[i], m.log_scales[i], eps=0.02)
        for i in (0, 1, 2)
    )


def of_classes(pair, s, t):
    weights = pair.student.classifier.weight, pair.teacher.classifier.weight
    return losses.class_attention(s.stages[-1], t.stages[-1], *weights, resolution=2, normalise=True)


# name, settings, the terms written out for (pair, its method, outputs of student and teacher)
TERMS = [
    ("fitnet", {"weight": 7.0},
     lambda p, m, s, t: {"hint": 7 * losses.mean_squared_error(m.regressor(s.stages[1]), t.stages[1])}),
    ("fitnet", {"weight": 7.0, "stage": 3},
     lambda p, m, s, t: {"hint": 7 * losses.mean_squared_error(m.regressor(s.stages[2]), t.stages[2])}),
    ("at", {"weight": 7.0, "p": 3.0},
     lambda p, m, s, t: {"attention": 7 * over_stages(partial(losses.attention_transfer, p=3), s, t)}),
    ("nst", {"weight": 7.0}, lambda p, m, s, t: {"nst": 7 * over_stages(losses.nst, s, t)}),
    ("vid", {"weight": 7.0, "eps": 0.02}, lambda p, m, s, t: {"vid": 7 * of_regressed_stages(m, s, t)}),
    ("sp", {"weight": 7.0},
     lambda p, m, s, t: {"similarity": 7 * losses.similarity_preserving(s.stages[2], t.stages[2])}),
    ("rkd", {"distance_weight": 7.0, "angle_weight": 3.0},
     lambda p, m, s, t: {
         "rkd_distance": 7 * losses.relational_terms(s.embedding, t.embedding)[0],
         "rkd_angle": 3 * losses.relational_terms(s.embedding, t.embedding)[1],
     }),
    ("pkt", {"weight": 7.0}, lambda p, m, s, t: {"pkt": 7 * losses.pkt(s.embedding, t.embedding)}),
    ("cc", {"weight": 7.0, "form": "neighbours"},
     lambda p, m, s, t: {"congruence": 7 * losses.correlation_congruence(
         m.student_embedding(s.embedding), m.teacher_embedding(t.embedding))}),
    ("cc", {"weight": 7.0, "form": "kernel", "gamma": 0.3, "order": 3},
     lambda p, m, s, t: {"congruence": 7 * losses.correlation_congruence_kernel(
         m.student_embedding(s.embedding), m.teacher_embedding(t.embedding), gamma=0.3, order=3)}),
    ("simkd", {"weight": 7.0},
     lambda p, m, s, t: {"projection": 7 * losses.mean_squared_error(
         p.student.projector(p.student.backbone(p.batch.images, features=True).stages[2]), t.stages[2])}),
    ("catkd", {"weight": 7.0, "resolution": 2, "normalise": True},
     lambda p, m, s, t: {"class_attention": 7 * of_classes(p, s, t)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "terms"), TERMS, ids=lambda value: value if type(value) is str else "")
def test_terms_are_the_weighted_losses_of_what_is_paired(name, settings, terms):
    pair = Pair(name, "resnet14", "resnet8", task_weight=0.5, **settings)
    student, teacher = (net(pair.batch.images, features=True) for net in (pair.student, pair.teacher))
    expected = {"task": 0.5 * losses.cross_entropy(student.logits, pair.batch.labels)}
    expected |= terms(pair, pair.method, student, teacher)
    assert all(value.abs() > 1e-6 for value in expected.values())  # a factor shows
    torch.testing.assert_close(pair.method(student, teacher, pair.batch), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("method", "key", "expected"),
    [
        ("reviewkd", "weight", {"resnet32x4-resnet8x4": 5.0, "resnet56-resnet20": 0.6, "resnet32x4-shufflenetv2": 8.0}),
        ("reviewkd", "student_maps", {"resnet32x4-resnet8x4": "post", "imagenet_resnet50-mobilenetv1": "pre"}),
        ("reviewkd", "max_mid_channels", {"resnet50-mobilenetv2": 512, "imagenet_resnet50-mobilenetv1": 256}),
        ("catkd", "weight", {"wrn_40_2-shufflenetv1": 80.0, "resnet32x4-shufflenetv1": 600.0, "vgg13-vgg8": 4.5}),
        ("catkd", "resolution", {"resnet32x4-shufflenetv2": 4, "resnet50-mobilenetv2": 2, "resnet20-resnet8": 2}),
        ("catkd", "normalise", {"resnet50-mobilenetv2": True, "resnet32x4-resnet8x4": False}),
        ("ofd", "weight", {"resnet32x4-resnet8x4": 1e-3, "imagenet_resnet34-imagenet_resnet18": 1e-4}),
        (
            "ofd",
            "weight",
            {"resnet50-imagenet_resnet18": 1e-4, "timm-mobilenetv1": 1e-4, "imagenet_resnet50-resnet20": 1e-3},
        ),
    ],
)
def test_settings_are_chosen_by_the_pair(method, key, expected):
    for pair, value in expected.items():
        teacher, student = pair.split("-")
        values = compose_values(f"method={method}", f"teacher={teacher}", f"student={student}")
        assert values["method"][key] == value
