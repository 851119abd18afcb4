"""Feature and contrastive losses once more, in loops over nested lists: slow, and close to the equations."""

import math


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def unit(vector):
    norm = math.sqrt(sum(v * v for v in vector))
    return [v / norm for v in vector] if norm else vector


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def nst(student, teacher):
    """Maps [B][C][H][W] of equal height: mean k(t, t') + mean k(s, s') - 2 mean k(s, t), k(a, b) = (a . b)^2."""
    per_image = []
    for s_map, t_map in zip(student, teacher, strict=True):
        s, t = ([unit([v for row in channel for v in row]) for channel in one] for one in (s_map, t_map))

        def kernel(a, b):
            return mean(dot(x, y) ** 2 for x in a for y in b)

        per_image.append(kernel(t, t) + kernel(s, s) - 2 * kernel(s, t))
    return mean(per_image)


def pooled(channel, size):
    """Average pool of [H][W] to [size][size]: cell i covers rows floor(i H / size) to ceil((i + 1) H / size)."""

    def cells(length):
        return [range(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]

    return [
        [mean(channel[y][x] for y in ys for x in xs) for xs in cells(len(channel[0]))] for ys in cells(len(channel))
    ]


def hcl(student, teacher):
    """Maps [B][C][H][W]: weights 1, then halved for each of the sizes 4, 2, 1 that is below the height."""

    def squared_error(size=None):
        return mean(
            (s - t) ** 2
            for s_map, t_map in zip(student, teacher, strict=True)
            for s_channel, t_channel in zip(s_map, t_map, strict=True)
            for s_row, t_row in zip(
                s_channel if size is None else pooled(s_channel, size),
                t_channel if size is None else pooled(t_channel, size),
                strict=True,
            )
            for s, t in zip(s_row, t_row, strict=True)
        )

    sizes = [None, *(size for size in (4, 2, 1) if size < len(student[0][0]))]
    weights = [0.5**i for i in range(len(sizes))]
    return sum(w * squared_error(size) for w, size in zip(weights, sizes, strict=True)) / sum(weights)


def crd_nce(positive, negatives, num_data):
    """positive [B], negatives [B][m]: one score per draw."""
    total = []
    for p, row in zip(positive, negatives, strict=True):
        noise = len(row) / num_data
        value = math.log(p / (p + noise + 1e-7)) + sum(math.log(noise / (n + noise + 1e-7)) for n in row)
        total.append(-value)
    return mean(total)
