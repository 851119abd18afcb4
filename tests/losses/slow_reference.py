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
