"""The losses once more, one image and one class at a time in plain Python: slow, and close to the equations."""

import math


def softmax(row, temperature=1.0):
    top = max(row)
    exponentials = [math.exp((value - top) / temperature) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def kd(student, teacher, temperature):
    pairs = zip(student, teacher, strict=True)
    return temperature**2 * mean(kl(softmax(t, temperature), softmax(s, temperature)) for s, t in pairs)


def dkd(student, teacher, target, alpha, beta, temperature):
    total = []
    for s, t, y in zip(student, teacher, target, strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        two_way = kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        others = kl(
            [a / (1 - p[y]) for c, a in enumerate(p) if c != y], [b / (1 - q[y]) for c, b in enumerate(q) if c != y]
        )
        total.append(alpha * two_way + beta * others)
    return temperature**2 * mean(total)


def ltkd_terms(student, teacher, groups, temperature, rebalancing, within_weights):
    """(cross, within); `rebalancing` is "batch", "none" or a list of masses by group id."""
    ids = sorted(set(groups))
    members = {g: [c for c, group in enumerate(groups) if group == g] for g in ids}
    p = [softmax(row, temperature) for row in teacher]
    q = [softmax(row, temperature) for row in student]
    mass_p = [{g: sum(row[c] for c in members[g]) for g in ids} for row in p]
    mass_q = [{g: sum(row[c] for c in members[g]) for g in ids} for row in q]
    if rebalancing == "batch":
        total = {g: sum(row[g] for row in mass_p) for g in ids}
        scale = {g: (len(p) / len(ids)) / total[g] for g in ids}
    elif rebalancing == "none":
        scale = dict.fromkeys(ids, 1.0)
    else:
        scale = {g: 1 / rebalancing[g] for g in ids}

    cross, within = [], []
    for b in range(len(p)):
        scaled = [scale[g] * mass_p[b][g] for g in ids]
        cross.append(kl([value / sum(scaled) for value in scaled], [mass_q[b][g] for g in ids]))
        within.append(0)
        for g in ids:
            inside_p = [p[b][c] / mass_p[b][g] for c in members[g]]
            inside_q = [q[b][c] / mass_q[b][g] for c in members[g]]
            within[-1] += kl(inside_p, inside_q) * (mass_p[b][g] if within_weights == "teacher" else 1)
    return temperature**2 * mean(cross), temperature**2 * mean(within)


def effective_number_weights(counts, beta):
    weights = [(1 - beta) / (1 - beta**n) for n in counts]
    return [len(counts) * w / sum(weights) for w in weights]


def cross_entropies(logits, target):
    return [-math.log(softmax(row)[y]) for row, y in zip(logits, target, strict=True)]


def focal(logits, target, weights, gamma):
    total = []
    for row, y in zip(logits, target, strict=True):
        q = softmax(row)[y]
        total.append(weights[y] * (1 - q) ** gamma * -math.log(q))
    return mean(total)


def class_balanced_focal(logits, target, weights, gamma):
    total = []
    for row, y in zip(logits, target, strict=True):
        for c, z in enumerate(row):
            p = 1 / (1 + math.exp(-z if c == y else z))  # of the right answer
            total.append(weights[y] * (1 - p) ** gamma * -math.log(p))
    return sum(total) / len(logits)


def ldam(cosines, target, counts, max_margin, scale, weights):
    largest = max(n**-0.25 for n in counts)
    total, weight = 0.0, 0.0
    for row, y in zip(cosines, target, strict=True):
        moved = [scale * (z - max_margin * counts[y] ** -0.25 / largest * (c == y)) for c, z in enumerate(row)]
        total += weights[y] * -math.log(softmax(moved)[y])
        weight += weights[y]
    return total / weight
