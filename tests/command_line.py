"""What the tests of the command line share: files to evaluate, and the results that plain NumPy has for them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="a POSIX notion")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")  # control characters, but not the newline


def shell(*arguments, **options):
    command = [sys.executable, "-m", "softxent", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, **options)


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def absent(monkeypatch, package):
    for name in [*sys.modules, package]:
        if name.split(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)


def store(folder, logits, labels, order="C"):
    paths = folder / "logits.npy", folder / "labels.npy"
    for path, array in zip(paths, (logits, labels), strict=True):
        np.save(path, np.asarray(array, order=order))
    return paths


def sample(shape, axis, seed=0, dtype=np.float64):
    """Logits, some of them tied, and labels."""
    rng = np.random.default_rng(seed)
    logits = np.round(3 * rng.standard_normal(shape), 1).astype(dtype)
    labels = rng.integers(shape[axis], size=np.delete(shape, axis))
    return logits, labels


def numbers(stdout):
    """The numbers of a report in JSON, in the form that `expected` has."""
    return {name: math.nan if value is None else value for name, value in json.loads(stdout).items()}


def expected(logits, labels, axis=-1, ignore_index=None, class_weight=None, label_smoothing=0.0, temperature=1.0):
    """Everything that `evaluate` reports, and the gradient, from the definitions and the whole array at once."""
    z = np.moveaxis(logits, axis, -1).astype(np.float64) / temperature
    n_classes = z.shape[-1]
    w = np.ones(n_classes) if class_weight is None else np.asarray(class_weight, dtype=np.float64)
    if labels.ndim == logits.ndim:
        t = np.moveaxis(labels, axis, -1).astype(np.float64)
        kept = np.ones(z.shape[:-1], dtype=bool)
        weights = np.ones(kept.shape)
    else:
        kept = labels != ignore_index if ignore_index is not None else np.ones(labels.shape, dtype=bool)
        t = np.eye(n_classes)[np.where(kept, labels, 0)]
        weights = w[np.where(kept, labels, 0)] * kept
    hit = np.argsort(-z, axis=-1, kind="stable") == t.argmax(axis=-1)[..., np.newaxis]  # ties: the earlier class first
    t = w * ((1 - label_smoothing) * t + label_smoothing / n_classes)
    shifted = z - z.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    n_kept, normalizer = np.count_nonzero(kept), weights.sum()
    gradient = (np.exp(log_p) * t.sum(axis=-1, keepdims=True) - t) * kept[..., np.newaxis] / normalizer / temperature
    losses = -(t * log_p).sum(axis=-1) * kept
    loss = losses.sum() / normalizer
    apart = ((losses - loss * weights)[kept] ** 2).sum()
    report = {
        "samples": kept.size,
        "ignored": kept.size - n_kept,
        "loss": loss,
        "standard_error": math.sqrt(apart * n_kept / (n_kept - 1)) / normalizer if n_kept > 1 else math.nan,
        "perplexity": math.exp(loss),
        "bits": loss / math.log(2),
        "top1_accuracy": hit[..., :1].any(axis=-1)[kept].mean(),
        "top5_accuracy": hit[..., :5].any(axis=-1)[kept].mean(),
    }
    return report, np.moveaxis(gradient, -1, axis)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])
