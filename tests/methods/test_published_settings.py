"""The YAML files hold the settings that the methods' authors, or the field's common code, use on CIFAR-100."""

import pytest

from ltkd.config.load import load_config

from ..conftest import compose_values

# teacher, student: DKD's beta, ReviewKD's weight, CAT-KD's (weight, size, normalise), learning rate; None: unknown
PAIRS = {
    ("resnet56", "resnet20"): (2.0, None, None, 0.05),
    ("resnet110", "resnet32"): (2.0, None, None, 0.05),
    ("resnet32x4", "resnet8x4"): (8.0, 5.0, (15.0, 2, False), 0.05),
    ("wrn_40_2", "wrn_16_2"): (6.0, 5.0, (12.0, 2, False), 0.05),
    ("wrn_40_2", "wrn_40_1"): (6.0, 5.0, (1.5, 2, False), 0.05),
    ("vgg13", "vgg8"): (6.0, 5.0, (4.5, 2, False), 0.05),
    ("vgg13", "mobilenetv2"): (6.0, None, None, 0.01),
    ("resnet50", "mobilenetv2"): (8.0, 8.0, (40.0, 2, True), 0.01),
    ("wrn_40_2", "shufflenetv1"): (8.0, 5.0, (80.0, 4, True), 0.01),
    ("resnet32x4", "shufflenetv1"): (8.0, 5.0, (600.0, 4, True), 0.01),
    ("resnet32x4", "shufflenetv2"): (8.0, 8.0, (600.0, 4, True), 0.01),
}


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_settings_of_each_pair(pair):
    beta, review_weight, class_attention, rate = PAIRS[pair]
    networks = [f"teacher={pair[0]}", f"student={pair[1]}", "recipe=mdistiller"]

    def method(name):
        return compose_values(f"method={name}", *networks)["method"]

    dkd = method("dkd")
    assert (dkd["alpha"], dkd["beta"]) == (1.0, beta)
    if review_weight is not None:
        assert method("reviewkd")["weight"] == review_weight
    if class_attention is not None:
        values = method("catkd")
        assert (values["weight"], values["resolution"], values["normalise"]) == class_attention
    config = load_config(compose_values("method=kd", *networks))
    assert config.recipe_of(config.student).learning_rate == rate


CIFAR = {
    "kd": {"task_weight": 0.1, "weight": 0.9, "temperature": 4.0},
    "fitnet": {"task_weight": 1.0, "weight": 100.0, "stage": "middle"},
    "at": {"task_weight": 1.0, "weight": 1000.0, "p": 2.0},
    "sp": {"task_weight": 1.0, "weight": 3000.0},
    "rkd": {"task_weight": 1.0, "distance_weight": 25.0, "angle_weight": 50.0},
    "pkt": {"task_weight": 1.0, "weight": 30000.0},
    "vid": {"task_weight": 1.0, "weight": 1.0, "init_variance": 5.0, "eps": 1e-5},
    "cc": {"task_weight": 1.0, "weight": 0.02},
    "nst": {"task_weight": 1.0, "weight": 50.0},
    "ofd": {"task_weight": 1.0, "weight": 1e-3},
    "crd": {
        "task_weight": 1.0, "weight": 0.8, "kd_weight": 0.0, "dimensions": 128, "negatives": 16384, "momentum": 0.5,
        "temperature": 0.07,
    },
    "reviewkd": {"task_weight": 1.0, "warmup_fraction": 0.08333, "max_mid_channels": 512},  # 20 of 240 epochs
    "dkd": {"task_weight": 1.0, "alpha": 1.0, "temperature": 4.0, "warmup_fraction": 0.08333},
    "simkd": {"task_weight": 0.0, "weight": 1.0, "reduction": 2},
    "dist": {"task_weight": 1.0, "beta": 2.0, "gamma": 2.0, "temperature": 4.0},
    "nkd": {"task_weight": 1.0, "gamma": 3.5, "temperature": 3.0},
    "catkd": {"task_weight": 1.0},
    "mlkd": {
        "task_weight": 0.1, "instance_weight": 0.9, "batch_weight": 0.9, "class_weight": 0.9,
        "temperatures": [2.0, 3.0, 4.0, 5.0, 6.0],
    },
    "lskd_kd": {"task_weight": 0.1, "weight": 9.0, "temperature": 2.0},
    "ctkd": {"task_weight": 0.1, "weight": 0.9},
    "bkd": {"task_weight": 1.0, "weight": 1.0, "temperature": 2.0, "effective_number_beta": 0.9999},
    "dive": {"task_weight": 0.5, "weight": 0.5, "temperature": 2.0, "power": 0.5},  # imbalance 50 and 100
    "wsl": {"task_weight": 1.0, "weight": 2.25, "temperature": 4.0},
}  # fmt: skip
IMAGENET = {
    "dkd": {"temperature": 1.0, "warmup_fraction": 0.01},  # 1 of 100 epochs
    "reviewkd": {"warmup_fraction": 0.01},
    "dist": {"beta": 2.0, "gamma": 2.0, "temperature": 1.0},
    "nkd": {"gamma": 1.5, "temperature": 1.0},
    "wsl": {"weight": 2.5, "temperature": 2.0},
    "ofd": {"weight": 1e-4},
}
BETA = {"imagenet_resnet18": 0.5, "mobilenetv1": 2.0}


@pytest.mark.parametrize("name", CIFAR)
def test_settings_on_cifar100(name):
    values = compose_values(f"method={name}", "dataset=cifar100_lt", "teacher=resnet32x4", "student=resnet8x4")
    assert CIFAR[name].items() <= values["method"].items()


@pytest.mark.parametrize("name", IMAGENET)
@pytest.mark.parametrize(
    ("teacher", "student"), [("imagenet_resnet34", "imagenet_resnet18"), ("imagenet_resnet50", "mobilenetv1")]
)
def test_settings_on_imagenet(name, teacher, student):
    values = compose_values(f"method={name}", f"teacher={teacher}", f"student={student}")["method"]
    assert IMAGENET[name].items() <= values.items()
    if name == "dkd":
        assert values["beta"] == BETA[student]
