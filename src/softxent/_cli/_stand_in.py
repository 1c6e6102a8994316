"""A stand-in in NumPy for ``softxent.cross_entropy_and_rank``, until that is there."""

from __future__ import annotations

from typing import Any

import numpy as np

import softxent


def cross_entropy_and_rank(logits: Any, labels: Any, *, out: Any, ignore_index: Any = None, **options: Any) -> Any:
    z = logits if logits.dtype.kind == "f" and logits.dtype.itemsize > 2 else logits.astype(out.dtype)
    softxent.cross_entropy(z, labels, ignore_index=ignore_index, out=out, **options)
    if labels.ndim == logits.ndim:
        kept, target = np.True_, labels.argmax(axis=-1)
    else:
        kept = labels != ignore_index if ignore_index is not None else np.True_
        target = np.where(kept, labels, 0).astype(np.intp)
    target = target[..., np.newaxis]
    at_target = np.take_along_axis(z, target, axis=-1)
    before = z > at_target
    before |= (z == at_target) & (np.arange(z.shape[-1]) < target)
    valid = kept & ~np.isnan(z.max(axis=-1))
    rank = np.where(valid, np.count_nonzero(before, axis=-1), -1)
    return out, rank, np.where(valid, z.argmax(axis=-1), -1)
