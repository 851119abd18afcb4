"""The logit losses once more, one image and one class at a time in plain Python, close to the papers' equations."""

import math

from .slow_reference import kl, mean, softmax


def rows(student, teacher):
    return zip(student, teacher, strict=True)


def standardize(row):
    centre = mean(row)
    deviation = math.sqrt(sum((value - centre) ** 2 for value in row) / (len(row) - 1))
    return [(value - centre) / (deviation + 1e-7) for value in row]


def nkd(student, teacher, target, gamma, temperature):
    total = []
    for s, t, y in zip(student, teacher, target, strict=True):
        others = [c for c in range(len(s)) if c != y]
        p = softmax([t[c] for c in others], temperature)
        q = softmax([s[c] for c in others], temperature)
        nontarget = sum(a * math.log(b) for a, b in rows(p, q))
        total.append(-softmax(t)[y] * math.log(softmax(s)[y]) - gamma * temperature**2 * nontarget)
    return mean(total)


def soft_label_weights(student, teacher, target):
    losses = [
        (-math.log(softmax(s)[y]), -math.log(softmax(t)[y])) for s, t, y in zip(student, teacher, target, strict=True)
    ]
    return [1 - math.exp(-s / (t + 1e-7)) for s, t in losses]


def weighted_soft_labels(student, teacher, target, weight, temperature):
    total = []
    for w, s, t in zip(soft_label_weights(student, teacher, target), student, teacher, strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        total.append(w * -sum(a * math.log(b) for a, b in rows(p, q)))
    return weight * temperature**2 * mean(total)


def balanced_kd(student, teacher, class_counts, temperature, beta):
    weights = [(1 - beta) / (1 - beta**n) for n in class_counts]
    total = []
    for s, t in rows(student, teacher):
        target = [p * w for p, w in rows(softmax(t, temperature), weights)]
        target = [value / sum(target) for value in target]
        total.append(kl(target, softmax(s, temperature)))
    return temperature**2 * mean(total)


def pearson(first, second, epsilon=0.0):
    a = [value - mean(first) for value in first]
    b = [value - mean(second) for value in second]
    norms = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
    return sum(x * y for x, y in rows(a, b)) / (norms + epsilon)


def dist(student, teacher, beta, gamma, temperature, epsilon=1e-8):
    p, q = ([softmax(row, temperature) for row in logits] for logits in (teacher, student))
    inter = 1 - mean(pearson(a, b, epsilon) for a, b in rows(p, q))
    columns = [(list(a), list(b)) for a, b in rows(list(zip(*p, strict=True)), list(zip(*q, strict=True)))]
    intra = 1 - mean(pearson(a, b, epsilon) for a, b in columns)
    return temperature**2 * (beta * inter + gamma * intra)


def mlkd_class(student, teacher, temperatures):
    """The class term; the batch term is that of the transposed probabilities, times C / B."""
    total = 0.0
    for temperature in temperatures:
        p, q = ([softmax(row, temperature) for row in logits] for logits in (teacher, student))
        total += gram_difference(p, q) / len(p[0])
    return total


def mlkd_batch(student, teacher, temperatures):
    total = 0.0
    for temperature in temperatures:
        p, q = ([softmax(row, temperature) for row in logits] for logits in (teacher, student))
        total += gram_difference(list(zip(*p, strict=True)), list(zip(*q, strict=True))) / len(p)
    return total


def gram_difference(p, q):
    size = range(len(p[0]))
    entries = ((sum(a[i] * a[j] for a in p) - sum(b[i] * b[j] for b in q)) for i in size for j in size)
    return sum(entry**2 for entry in entries)


def alpha_beta(student, teacher, a, b, temperature):
    """The definition for a, b and a + b other than 0."""
    total = []
    for s, t in rows(student, teacher):
        p, q = softmax(t, temperature), softmax(s, temperature)
        inside = (x**a * y**b - a / (a + b) * x ** (a + b) - b / (a + b) * y ** (a + b) for x, y in rows(p, q))
        total.append(-sum(inside) / (a * b))
    return mean(total)


def isotonic_nonincreasing(values):
    """Pool adjacent violators."""
    blocks = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (first, n), (second, m) = blocks[-2:]
            blocks[-2:] = [[(first * n + second * m) / (n + m), n + m]]
    return [value for value, size in blocks for _ in range(size)]


def soft_rank(row, strength):
    n = len(row)
    order = sorted(range(n), key=lambda i: -row[i])
    ordered = [row[i] / strength for i in order]
    regression = isotonic_nonincreasing([value - (n - place) for place, value in enumerate(ordered)])
    ranks = [0.0] * n
    for place, i in enumerate(order):
        ranks[i] = ordered[place] - regression[place]
    return ranks


def hard_rank(row):
    """1 for the smallest; equal values share the mean of their ranks."""
    return [sum(other < value for other in row) + (sum(other == value for other in row) + 1) / 2 for value in row]


def spearman(first, second, ranks):
    return pearson(ranks(first), ranks(second))


def ranking_loss(student, teacher, k, strength):
    total = []
    for s, t in rows(student, teacher):
        top = {c for row in (s, t) for c in sorted(range(len(row)), key=lambda c: -row[c])[:k]}
        chosen = sorted(top)
        total.append(
            1 - spearman([s[c] for c in chosen], [t[c] for c in chosen], lambda values: soft_rank(values, strength))
        )
    return mean(total)


def correlation_matching(student, teacher, difficulty, temperature, rank_strength):
    total = []
    for s, t, d in zip(student, teacher, difficulty, strict=True):
        s, t = standardize(s), standardize(t)
        values = pearson(softmax(s, temperature), softmax(t, temperature))
        ranks = spearman(s, t, lambda row: soft_rank(row, rank_strength / len(row)))
        total.append((1 - d) * (1 - values) + d * (1 - ranks))
    return mean(total)
