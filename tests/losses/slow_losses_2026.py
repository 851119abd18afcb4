"""The losses of the recent baselines in loops over images, classes and keys: slow, and as close to the equations."""

import math


def softmax(row, temperature=1.0):
    powers = [math.exp(z / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def cross_entropy(row, label):
    return -math.log(softmax(row)[label])


def kl(teacher, student, temperature):
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def soft_cross_entropy(p, student, temperature):
    return -sum(a * math.log(b) for a, b in zip(p, softmax(student, temperature), strict=True))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def difference_error(student, teacher, u):
    classes = range(len(u))
    return 0.25 * sum(
        u[i] * u[j] * ((teacher[i] - teacher[j]) - (student[i] - student[j])) ** 2 for i in classes for j in classes
    )


def gkl(student, teacher, weights, *, alpha, beta, temperature, improved=False, normalise_images=False):
    """weights: u of each image, after the power. improved: divided by B, as IKL."""
    soft = mean(
        soft_cross_entropy(softmax(t, temperature), s, temperature) for s, t in zip(student, teacher, strict=True)
    )
    errors = [difference_error(s, t, u) for s, t, u in zip(student, teacher, weights, strict=True)]
    mass = [sum(a * b for a in u for b in u) for u in weights]
    if improved:
        error = mean(errors)
    elif normalise_images:
        error = mean(e / m for e, m in zip(errors, mass, strict=True))
    else:
        error = sum(errors) / sum(mass)
    return alpha * soft + beta * error


def xerm(student, teacher, target, counts, gamma):
    losses = []
    for s, t, y in zip(student, teacher, target, strict=True):
        balanced = [z - math.log(n / sum(counts)) for z, n in zip(t, counts, strict=True)]
        a, b = cross_entropy(balanced, y) ** gamma, cross_entropy(t, y) ** gamma
        w = a / (a + b + 1e-5)
        losses.append(w * soft_cross_entropy(softmax(balanced), s, 1.0) + (1 - w) * cross_entropy(s, y))
    return mean(losses)


def balanced_posterior_kd(student, teachers, counts, temperature, drawn=None):
    """teachers: rows of logits of each; drawn: frequencies of the classes in the batches, else those of counts."""
    pi = [n / sum(counts) for n in counts]
    r = pi if drawn is None else [n / sum(drawn) for n in drawn]
    losses = []
    for s, *members in zip(student, *teachers, strict=True):
        under_r = [[z + math.log(b / a) for z, a, b in zip(t, pi, r, strict=True)] for t in members]
        p = [mean(column) for column in zip(*(softmax(t, temperature) for t in under_r), strict=True)]
        q = softmax([z + math.log(b) for z, b in zip(s, r, strict=True)], temperature)
        losses.append(temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return mean(losses)


def prior_corrected_kd(student, teacher, prior, counts, temperature, student_prior):
    pi = [n / sum(counts) for n in counts]
    return mean(
        kl(
            [z - math.log(m) for z, m in zip(t, prior, strict=True)],
            [z + student_prior * math.log(p) for z, p in zip(s, pi, strict=True)],
            temperature,
        )
        for s, t in zip(student, teacher, strict=True)
    )


def deferred_hard_distillation(student, teacher, target, weights, alpha):
    decisions = [t.index(max(t)) for t in teacher]
    hard = sum(weights[k] * cross_entropy(s, k) for s, k in zip(student, decisions, strict=True))
    hard /= sum(weights[k] for k in decisions)
    return (1 - alpha) * mean(cross_entropy(s, y) for s, y in zip(student, target, strict=True)) + alpha * hard


def trust_gated_kd(student, teacher, target, accuracy, temperature):
    raw = [math.sqrt(1 - a) for a in accuracy]
    total = 0.0
    for s, t, y in zip(student, teacher, target, strict=True):
        if t.index(max(t)) == y:
            total += raw[y] * len(raw) / sum(raw) * kl(t, s, temperature)
    return total / len(student)


def weighted_hard_soft(student, teacher, target, weights, temperature):
    rows = zip(student, teacher, target, weights, strict=True)
    return mean(w[0] * cross_entropy(s, y) + w[1] * kl(t, s, temperature) for s, t, y, w in rows)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(row):
    return [x / math.sqrt(dot(row, row)) for x in row]


def class_balanced_distillation(student, logits, teachers, target, alpha, beta):
    """teachers: of each its features of all images."""
    distances = []
    for number, row in enumerate(student):
        joint = [x for features in teachers for x in unit(features[number])]
        distances.append(1 - dot(unit(row), unit(joint)))
    hard = mean(cross_entropy(z, y) for z, y in zip(logits, target, strict=True))
    return (1 - alpha) * hard + alpha * beta * mean(distances)


def queue_contrast(query, keys, target, key_target, counts, keep, temperature):
    losses = []
    for q, y, kept in zip(query, target, keep, strict=True):
        similarity = []
        for c, n in enumerate(counts):
            of_class = [k for k in range(len(keys)) if key_target[k] == c and kept[k]]
            powers = mean(math.exp(dot(q, keys[k]) / temperature) for k in of_class)
            similarity.append(math.log(powers) + math.log(n / sum(counts)))
        losses.append(cross_entropy(similarity, y))
    return mean(losses)


def balanced_contrastive(centers, view1, view2, target, temperature):
    z, labels = [*view1, *view2, *centers], [*target, *target, *range(len(centers))]
    losses = []
    for a in range(2 * len(target)):
        positives = [p for p in range(len(z)) if p != a and labels[p] == labels[a]]
        total = 0.0
        for j in range(len(z)):
            if j != a:
                members = sum(label == labels[j] for label in labels) - (j in positives)
                total += math.exp(dot(z[a], z[j]) / temperature) / members
        losses.append(-mean(dot(z[a], z[p]) / temperature - math.log(total) for p in positives))
    return mean(losses)
