"""The C library from Numba's nopython code: the losses of many small problems, without Python in the loop."""

import ctypes
import sys
from pathlib import Path

import numba
import numpy as np

import softxent

sys.path.insert(0, str(Path(__file__).parent.parent / "ctypes"))
from loss import Block, library  # where the struct is declared

cross_entropy = library.softxent_cross_entropy_f64
cross_entropy.argtypes = [ctypes.c_void_p, ctypes.c_void_p]  # Numba takes addresses
cross_entropy.restype = ctypes.c_int

WORDS = ctypes.sizeof(Block) // 8
AT = {name: getattr(Block, name).offset // 8 for name, _ in Block._fields_}
LOGITS, LOGITS_STRIDE, LOGITS_STEP = AT["logits"], AT["logits_sample_stride"], AT["logits_class_stride"]
LABELS, LABELS_STRIDE, LABEL_TYPE = AT["labels"], AT["labels_stride"], AT["label_type"]
LOSS, LOSS_STRIDE = AT["loss"], AT["loss_stride"]
N_SAMPLES, N_CLASSES = AT["n_samples"], AT["n_classes"]
INT64 = 3


@numba.njit
def mean_losses(logits, labels):
    """The mean loss of each problem: logits (problems, n, C), labels (problems, n)."""
    problems, n, n_classes = logits.shape
    means, loss, block = np.empty(problems), np.empty(n), np.zeros(WORDS, np.int64)
    block[0], block[N_SAMPLES], block[N_CLASSES] = WORDS * 8, n, n_classes
    block[LOGITS_STRIDE], block[LOGITS_STEP] = n_classes, 1
    block[LABELS_STRIDE], block[LABEL_TYPE] = 1, INT64
    block[LOSS], block[LOSS_STRIDE] = loss.ctypes.data, 1
    for i in range(problems):
        block[LOGITS], block[LABELS] = logits[i].ctypes.data, labels[i].ctypes.data
        if cross_entropy(block.ctypes.data, 0) != 0:
            raise ValueError("a label is no class")
        means[i] = loss.mean()
    return means


if __name__ == "__main__":
    random = np.random.default_rng(0)
    logits, labels = random.standard_normal((50, 30, 10)), random.integers(0, 10, (50, 30))
    means = mean_losses(logits, labels)
    expected = softxent.cross_entropy(logits, labels, reduction="none").mean(axis=1)
    np.testing.assert_allclose(means, expected, rtol=1e-14)
    print(f"mean loss {means.mean():.6f}")
