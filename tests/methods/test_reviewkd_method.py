"""ReviewKD's levels, its fusion and its warm-up."""

import torch
import torch.nn.functional as F

from ltkd import losses

from .real_pair import Pair


def normalised(norm, x):
    """Batch normalisation in training mode, written out."""
    mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def test_the_review_from_the_deepest_level_to_the_shallowest():
    pair = Pair("reviewkd", "mobilenetv2", "resnet8", weight=3.0)
    pair.method.start_epoch(240)
    student, teacher = pair.outputs()
    levels = [
        (student.embedding[:, :, None, None], teacher.embedding[:, :, None, None]),
        (student.stages[2], teacher.preact_stages[3]),  # 8 x 8 and 2 x 2
        (student.stages[1], teacher.preact_stages[2]),
        (student.stages[0], teacher.preact_stages[1]),
    ]
    value, passed_on = 0, None
    for depth, ((student_map, teacher_map), fusion) in enumerate(zip(levels, pair.method.fusions, strict=True)):
        x = normalised(fusion.reduce_norm, F.conv2d(student_map, fusion.reduce.weight))
        if depth > 0:
            height = x.shape[2]
            rows = torch.arange(height) * passed_on.shape[2] // height  # nearest
            deeper = passed_on[:, :, rows][:, :, :, rows]
            both = torch.cat((x, deeper), dim=1)
            attention = torch.sigmoid(F.conv2d(both, fusion.attention.weight, fusion.attention.bias))
            x = x * attention[:, 0:1] + deeper * attention[:, 1:2]
        size = teacher_map.shape[2]
        rows = torch.arange(size) * x.shape[2] // size
        x = x[:, :, rows][:, :, :, rows]
        passed_on = x
        reviewed = normalised(fusion.expand_norm, F.conv2d(x, fusion.expand.weight, padding=1))
        value = value + losses.hcl(reviewed, teacher_map)
    torch.testing.assert_close(pair.method(student, teacher, pair.batch)["review"], 3 * value)


def test_mid_channels_are_the_pooled_vectors_but_no_more_than_the_limit():
    assert Pair("reviewkd", "resnet8", "resnet8", size=8).method.fusions[0].reduce.out_channels == 64
    limited = Pair("reviewkd", "resnet8", "resnet8", size=8, max_mid_channels=32).method
    assert [fusion.reduce.out_channels for fusion in limited.fusions] == [32] * 4
    assert limited.fusions[0].attention is None
    assert all(fusion.attention.weight.shape == (2, 64, 1, 1) for fusion in limited.fusions[1:])


def test_the_students_maps_may_be_those_before_the_activation():
    post, pre = (
        Pair("reviewkd", "resnet8", "resnet8", size=8, student_maps=maps, max_mid_channels=32)
        for maps in ("post", "pre")
    )
    student, teacher = post.outputs()
    assert post.method._levels(student, teacher)[-1][0] is student.stages[0]
    assert pre.method._levels(student, teacher)[-1][0] is student.preact_stages[0]
    pre.method.load_state_dict(post.method.state_dict())
    values = [one.method(student, teacher, one.batch)["review"].item() for one in (post, pre)]
    assert values[0] != values[1]


def test_the_review_is_warmed_up_and_the_task_is_not():
    pair = Pair("reviewkd", "resnet8", "resnet8", size=8, warmup_fraction=20 / 240)
    student, teacher = pair.outputs()

    def review(epoch):
        pair.method.start_epoch(epoch)
        return pair.method(student, teacher, pair.batch)

    full = review(20)
    torch.testing.assert_close(review(5)["review"], full["review"] / 4)
    assert review(200)["review"] == full["review"]
    assert review(1)["task"] == full["task"]
