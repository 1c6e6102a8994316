"""Labels as the user gave them: class indices or a target distribution, checked, and the errors that are about them.

How a loss is computed from them is in ``_problem.py``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._arrays import Array, as_array, as_real_array, sample_shape


def labels_or_target(labels: npt.ArrayLike, logits: Array, class_axis: int) -> tuple[Array | None, Array | None]:
    """Class indices, or a target distribution: told by the number of axes."""
    array = as_array(labels, "labels")
    if array.dtype.kind in "OUSMm":
        raise TypeError(f"labels must hold real numbers (class indices or a distribution); got dtype {array.dtype}")
    if array.ndim == logits.ndim:
        target = as_real_array(array, "labels")
        if target.shape != logits.shape:
            raise ValueError(
                f"labels with as many axes as the logits are distributions, of the logits' shape {logits.shape}; "
                f"got {target.shape}"
            )
        return None, target
    shape = sample_shape(logits, class_axis)
    if array.shape != shape:
        raise ValueError(
            f"labels must have the samples' shape {shape} (class indices) or the logits' shape "
            f"{logits.shape} (distributions); got {array.shape}"
        )
    if array.size == 0 and array.dtype == np.float64 and not isinstance(labels, np.ndarray):
        array = array.astype(np.intp)  # an empty list has no dtype of its own
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels that are class indices must have an integer dtype; got {array.dtype}")
    return (array if _kernels.is_behaved(array) else array.astype(array.dtype.newbyteorder("="))), None


def for_kernels(labels: Array, ignore_index: int | None) -> tuple[Array, int | None]:
    """The same class indices and the same ignored one, as signed numbers where they are not below 2^63."""
    if ignore_index is None or not np.iinfo(labels.dtype).min <= ignore_index <= np.iinfo(labels.dtype).max:
        return labels, None  # no label can be equal to it
    if ignore_index < 2**63:
        return labels, ignore_index
    # The kernels compare signed numbers: -1 for 2^64 - 1, and no class is negative.
    return labels.view(np.int64), ignore_index - 2**64


def label_error(labels: Array | None, n_classes: int, ignore_index: int | None) -> IndexError:
    """The error that names the first label that is no class."""
    assert labels is not None  # the kernels find nothing bad in a distribution
    labels = labels.copy()  # another thread may be writing them
    bad = (labels < 0) | (labels >= n_classes)
    if ignore_index is not None:
        bad &= labels != ignore_index
    if not np.any(bad):
        return IndexError(f"labels held a value outside [0, {n_classes}) during the call; it has changed since")
    where = np.unravel_index(int(np.argmax(bad)), labels.shape)
    value = int(labels[where])
    name = f"labels[{', '.join(str(int(i)) for i in where)}]" if where else "labels"
    hint = f"; ignore_index={value} would leave such samples out" if ignore_index is None else ""
    return IndexError(f"{name} is {value}, which is not a class in [0, {n_classes}){hint}")
