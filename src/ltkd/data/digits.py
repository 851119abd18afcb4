"""scikit-learn's handwritten digits: a real data set that is small enough for every test and needs no download."""

from pathlib import Path

import numpy as np

from ltkd.data.sources import Source, register_source

_TEST_PER_CLASS = 50
_TEST_SEED = 1797  # its own, so that the test set is the same whatever the split seed


@register_source("digits")
def read_digits(data_root: Path) -> Source:
    """8x8 grey images, 124 for training and 50 for testing in each class.

    The smallest class has 174 images; after the test images every class is cut to the first 124 of the rest, because
    the long tail is cut from balanced data.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # 0 .. 16 to 0 .. 255
    labels = digits.target.astype(np.int64)
    per_class = np.bincount(labels).min() - _TEST_PER_CLASS
    generator = np.random.RandomState(_TEST_SEED)
    train, test = [], []
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        test_rows = generator.permutation(rows)[:_TEST_PER_CLASS]
        test.append(test_rows)
        train.append(np.setdiff1d(rows, test_rows)[:per_class])
    train_rows, test_rows = np.sort(np.concatenate(train)), np.sort(np.concatenate(test))
    names = [str(name) for name in digits.target_names]
    return Source(images[train_rows], labels[train_rows], images[test_rows], labels[test_rows], names)
