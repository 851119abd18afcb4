"""CRD's memories, its constant and its negatives, on class sizes of a long tail."""

import pytest
import torch
import torch.nn.functional as F

from ltkd import losses
from ltkd.errors import UserError
from ltkd.methods.contrastive import ClassNegatives

from .real_pair import Pair

RAGGED = torch.tensor([3, 0, 0, 1, 0, 5, 5, 0, 3, 0, 0])  # unordered; 6, 1, 0, 2, 0, 2 images


@pytest.fixture
def pair():
    return Pair("crd", "resnet14", "resnet8", size=8, temperature=0.5, negatives=16384)


def test_negatives_are_of_other_classes_and_all_of_them_come_up_alike():
    torch.manual_seed(0)
    negatives = ClassNegatives(RAGGED, 6)
    assert negatives.fewest == 11 - 6
    labels = torch.tensor([0, 1, 3, 5])
    counts = negatives.draw(labels, 100_000)
    assert counts.shape == (4, 11)
    assert counts.sum(dim=1).tolist() == [100_000] * 4
    for label, row in zip(labels.tolist(), counts, strict=True):
        others = label != RAGGED
        assert row[~others].sum() == 0
        share = row[others] / 100_000
        torch.testing.assert_close(share, torch.full_like(share, 1 / others.sum()), rtol=0.05, atol=0)


def test_negatives_follow_the_global_generator():
    negatives = ClassNegatives(RAGGED, 6)
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(negatives.draw(torch.tensor([0, 1]), 8))
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], negatives.draw(torch.tensor([0, 1]), 8))
    assert not negatives.state_dict()  # the data set determines them


def test_one_class_has_no_negatives():
    with pytest.raises(UserError, match="crd: needs training images of two classes"):
        ClassNegatives(torch.zeros(5, dtype=torch.int64), 3)


def test_as_many_negatives_as_the_largest_class_has(pair):
    labels = pair.labels
    assert pair.method.num_negatives == len(labels) - torch.bincount(labels).max()
    assert Pair("crd", "resnet14", "resnet8", size=8, negatives=3).method.num_negatives == 3


def test_the_memories_have_a_row_per_image_about_unit_norm_and_are_saved(pair):
    state = pair.method.state_dict()
    for role in ("student", "teacher"):
        memory = state[f"{role}_memory"]
        assert memory.shape == (len(pair.labels), 128)
        torch.testing.assert_close(memory.norm(dim=1), torch.ones(len(memory)), rtol=0.2, atol=0)
        assert state[f"{role}_constant"] == 0


def test_terms_equal_the_equation(pair):
    method, batch = pair.method, pair.batch
    memories = {role: getattr(method, f"{role}_memory").clone() for role in ("student", "teacher")}
    student, teacher = pair.outputs()
    torch.manual_seed(1)
    counts = method.other_classes.draw(batch.labels, method.num_negatives)
    torch.manual_seed(1)
    terms = method(student, teacher, batch)

    embeddings = {
        "student": F.normalize(method.student_embedding(student.embedding)),
        "teacher": F.normalize(method.teacher_embedding(teacher.embedding)),
    }
    num_data = len(pair.labels)
    for role, other in (("student", "teacher"), ("teacher", "student")):
        drawn = []  # [B, 1 + K]: the positive's score, then each draw's
        for b in range(4):
            scores = (embeddings[role][b] @ memories[other].T / 0.5).exp()
            rows = torch.repeat_interleave(torch.arange(num_data), counts[b].long())
            drawn.append(torch.cat((scores[batch.index[b]].view(1), scores[rows])))
        drawn = torch.stack(drawn)
        z = num_data * drawn.mean()
        torch.testing.assert_close(getattr(method, f"{role}_constant"), z.detach())
        expected = 0.8 * losses.crd_nce(drawn / z, num_data=num_data)
        torch.testing.assert_close(terms[f"crd_{role}"], expected)

    for role in ("student", "teacher"):
        before, after = memories[role], getattr(method, f"{role}_memory")
        seen = torch.zeros(num_data, dtype=torch.bool)
        seen[batch.index] = True
        assert torch.equal(after[~seen], before[~seen])
        mixed = F.normalize(0.5 * before[batch.index] + 0.5 * embeddings[role])
        torch.testing.assert_close(after[batch.index], mixed.detach())


def test_the_first_batch_sets_the_constant_and_evaluation_changes_nothing(pair):
    method = pair.method
    method.eval()
    pair.terms()
    assert method.student_constant == 0
    method.train()
    pair.terms()
    first = method.student_constant.clone(), method.teacher_constant.clone()
    assert min(first) > 0
    sum(pair.terms().values()).backward()  # the memory has changed under the graph of its own step
    assert (method.student_constant, method.teacher_constant) == first
    assert method.student_embedding.weight.grad.abs().sum() > 0
    assert method.teacher_embedding.weight.grad.abs().sum() > 0


def test_kd_may_be_added(pair):
    assert "kd" not in pair.terms()
    with_kd = Pair("crd", "resnet14", "resnet8", size=8, kd_weight=2.0, kd_temperature=3.0)
    student, teacher = with_kd.outputs()
    expected = 2 * losses.kd(student.logits, teacher.logits, temperature=3.0)
    torch.testing.assert_close(with_kd.method(student, teacher, with_kd.batch)["kd"], expected)


def test_the_first_occurrence_of_an_image_in_a_batch_is_what_is_remembered(pair):
    method = pair.method
    memory, before = method.student_memory, method.student_memory.clone()
    rows = torch.randn(5, 128, generator=torch.Generator().manual_seed(2))
    index = torch.tensor([2, 0, 2, 0, 2])
    method._remember(memory, rows, index)
    for image, position in ((2, 0), (0, 1)):
        mixed = F.normalize(0.5 * before[image] + 0.5 * F.normalize(rows[position], dim=0), dim=0)
        torch.testing.assert_close(memory[image], mixed)
    assert torch.equal(memory[1], before[1])
