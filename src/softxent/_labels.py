"""Labels as the user gave them: class indices or a target distribution, checked, and the errors that are about them.

Only shapes, dtypes and integer targets are checked here. Each class index, and each entry of a target of floats, is
checked by the kernel that uses it. How a loss is computed from labels is in ``_problem.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._arrays import Array, as_array, as_real_array, name_of_entry, sample_shape, without_axis
from ._pieces import pieces

# Samples of an integer target that are checked at once: their sums take half a megabyte.
PIECE_SUMS = 1 << 16


class SparseTarget(NamedTuple):
    """A target distribution that has mass in a few classes: taken as ``labels`` by every loss.

    It means the dense distribution that has these masses, and 0 elsewhere: as a teacher's top classes in distillation.
    With ``v_j`` the mass of class ``i_j``, and no option, a loss is ``sum_j v_j (logsumexp(z) - z[i_j])``.

    Parameters
    ----------
    indices : array_like of int, shape (*sample axes, K)
        Classes of each sample. -1 is no class, and its mass is not looked at: it fills up where a sample has fewer.
        A class that is there twice has the sum of both masses.
    values : array_like, shape (*sample axes, K)
        Their masses, none of them negative. They need not sum to 1.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> target = softxent.SparseTarget([[2, 0], [1, -1]], [[0.75, 0.25], [1.0, 0.0]])
    >>> softxent.cross_entropy(np.log([[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]]), target, reduction="none")
    array([1.38629436, 0.69314718])
    """

    indices: npt.ArrayLike
    values: npt.ArrayLike


def set_sparse_target(call: _kernels.Call, target: SparseTarget) -> None:
    """Set a call's classes and masses as the kernels take them: contiguous, classes native integers, masses of the type
    that is computed in."""
    shape = sample_shape(call.logits, call.class_axis)
    indices, values = as_array(target.indices, "labels.indices"), as_real_array(target.values, "labels.values")
    if indices.size == 0 and indices.dtype == np.float64:
        indices = indices.astype(np.intp)  # an empty list has no dtype of its own
    if indices.dtype.kind not in "iu":
        hint = "; use indices.astype(int)" if indices.dtype.kind == "f" and holds_whole_numbers(indices) else ""
        raise TypeError(f"labels.indices must have an integer dtype; got {indices.dtype}{hint}")
    if indices.ndim != len(shape) + 1 or indices.shape[:-1] != shape:
        raise ValueError(
            f"labels.indices must have the shape ({', '.join(map(str, (*shape, 'K')))}): the samples' axes, and K "
            f"classes of each; got {indices.shape}"
        )
    if values.shape != indices.shape:
        raise ValueError(f"labels.values must have the shape of labels.indices, {indices.shape}; got {values.shape}")
    call.classes = np.require(indices, indices.dtype.newbyteorder("="), ["C", "A"])
    with np.errstate(all="ignore"):  # a mass that is too large for the type becomes infinite
        call.masses = np.require(values, np.float32 if call.f32 else np.float64, ["C", "A"])
    call.originals.update({"labels.indices": indices, "labels.values": values})


def labels_or_target(labels: npt.ArrayLike, logits: Array, class_axis: int) -> tuple[Array | None, Array | None]:
    """Class indices or a target distribution, the other being None. The number of axes decides which."""
    array = as_array(labels, "labels")
    if array.dtype.kind in "OUSMm":
        raise TypeError(f"labels must hold real numbers (class indices or a distribution); got dtype {array.dtype}")
    if array.ndim == logits.ndim:
        return None, as_target(array, logits, class_axis)
    shape = sample_shape(logits, class_axis)
    if array.shape != shape:
        raise ValueError(
            f"labels must have the samples' shape {shape} (class indices) or the logits' shape "
            f"{logits.shape} (distributions); got {array.shape}{shape_hint(array, logits, class_axis)}"
        )
    if array.size == 0 and array.dtype == np.float64 and not isinstance(labels, np.ndarray):
        array = array.astype(np.intp)  # an empty list has no dtype of its own
    if array.dtype.kind not in "iu":
        hint = "; use labels.astype(int)" if holds_whole_numbers(array) else ""
        raise TypeError(f"labels that are class indices must have an integer dtype; got {array.dtype}{hint}")
    return (array if _kernels.is_behaved(array) else native(array)), None


def as_target(array: Array, logits: Array, class_axis: int) -> Array:
    """A target distribution in the labels' place."""
    target = as_real_array(array, "labels")
    if target.shape != logits.shape:
        raise ValueError(
            f"labels with as many axes as the logits are distributions, of the logits' shape {logits.shape}; "
            f"got {target.shape}{shape_hint(target, logits, class_axis)}"
        )
    check_one_hot(target, class_axis)
    return target


def native(labels: Array) -> Array:
    """A copy in native byte order and C order.

    NumPy before 2.2 crashes if it compares an array in another byte order with a number out of the dtype's range.
    """
    return labels.astype(labels.dtype.newbyteorder("="), order="C")


def for_kernels(labels: Array, ignore_index: int | None) -> tuple[Array, int | None]:
    """Class indices and ignore_index for the kernels, which compare signed numbers of 64 bits."""
    if ignore_index is None or not np.iinfo(labels.dtype).min <= ignore_index <= np.iinfo(labels.dtype).max:
        return labels, None  # no label can be equal to ignore_index
    if ignore_index < 2**63:
        return labels, ignore_index
    # As a signed number 2^64 - 1 is -1. No class is negative, so that no two labels become equal.
    return labels.view(np.int64), ignore_index - 2**64


def check_one_hot(target: Array, class_axis: int, argument: str = "labels") -> None:
    """Raise a ValueError if the target is of integers or bools and some sample is not 1 for one class and 0 for others.

    Counts, or several classes of a sample, are no distribution.
    """
    if target.dtype.kind not in "biu":
        return
    rows = np.moveaxis(np.asarray(target), class_axis, -1)
    for index in pieces(rows.shape[:-1], PIECE_SUMS):
        piece = rows[index]
        if piece.size and not (
            piece.min() >= 0 and piece.max() <= 1 and np.all(piece.sum(axis=-1, dtype=np.intp) == 1)
        ):
            raise one_hot_error(rows, class_axis, argument)


# What a binary classifier's logits, one for each sample, lack.
OF_ONE_CLASS = "logits of one class tell nothing: give the logits with zeros before them in the class axis"

# ----------------------------------------------------------------------------------------------------------------------
# Errors, and what would do. They may take the time and the memory for a few numbers for each sample.


def label_error(labels: Array, index: tuple[int, ...], n_classes: int, ignore_index: int | None) -> IndexError:
    """The error for a label that a kernel has found to be no class."""
    value = int(labels[index])
    if 0 <= value < n_classes or value == ignore_index:  # another thread has written it
        return IndexError(f"labels held a value outside [0, {n_classes}) during the call; it has changed since")
    hint = f"; ignore_index={value} would leave such samples out" if ignore_index is None else ""
    if n_classes == 1:
        hint = f"; {OF_ONE_CLASS}"
    elif value == n_classes and count_from_1(labels, n_classes, ignore_index):
        hint = "; they seem to count from 1: use labels - 1"
    return IndexError(f"{name_of_entry(index, 'labels')} is {value}, which is not a class in [0, {n_classes}){hint}")


def count_from_1(labels: Array, n_classes: int, ignore_index: int | None) -> bool:
    """Whether all labels that are not ignored lie in 1 to ``n_classes``."""
    counted = labels if ignore_index is None else labels[labels != ignore_index]
    return counted.size > 1 and bool(counted.min() > 0 and counted.max() == n_classes)


def one_hot_error(rows: Array, class_axis: int, argument: str) -> ValueError:
    """The error that names the first sample of an integer target, its class axis last, that is not one-hot."""
    sums = rows.sum(axis=-1, dtype=np.float64)
    is_negative = np.zeros(sums.shape, bool) if rows.dtype.kind in "bu" else np.asarray(rows.min(axis=-1) < 0)
    first = np.unravel_index(int(np.argmax(is_negative | (sums != 1))), sums.shape)
    before, after = first[:class_axis], first[class_axis:]
    if is_negative[first]:
        k = int(np.argmax(rows[first] < 0))
        saw = f"{name_of_entry((*before, k, *after), argument)} is {int(rows[first][k])}"
    else:
        name = name_of_entry((*before, ":", *after) if after else before, argument)
        saw = f"{name} sums to {int(sums[first])}"
    if rows.ndim == 1:
        hint = (
            "one axis of logits is one sample; for binary labels, one for each logit, give "
            "numpy.stack([numpy.zeros_like(logits), logits], axis=-1) as logits"
        )
    elif rows.shape[-1] == 1:
        hint = f"{OF_ONE_CLASS}, and class indices"
    else:
        hint = "give class indices, or floats: the mass of each class, such as labels divided by their sum"
    return ValueError(
        f"{argument} of dtype {rows.dtype.name} and the logits' shape must be 1 for one class of each sample and 0 for "
        f"the others; {saw}; {hint}"
    )


def sparse_target_error(target: SparseTarget, sample: tuple[int, ...], n_classes: int) -> IndexError | ValueError:
    """The error for a sample in which a kernel has found a class or a mass that is none."""
    indices, values = np.asarray(target.indices)[sample], np.asarray(target.values)[sample]
    is_class = (indices >= 0) & (indices < n_classes)
    with np.errstate(invalid="ignore"):
        bad_masses = np.flatnonzero(~(values >= 0) & is_class)
    bad_classes = np.flatnonzero(~is_class & (indices != -1 if indices.dtype.kind == "i" else True))
    if len(bad_classes):
        j = int(bad_classes[0])
        name = name_of_entry((*sample, j), "labels.indices")
        return IndexError(f"{name} is {int(indices[j])}, which is not a class in [0, {n_classes}), and not -1")
    if len(bad_masses):
        j = int(bad_masses[0])
        name = name_of_entry((*sample, j), "labels.values")
        return ValueError(f"labels.values hold the masses of classes, 0 or more; {name} is {float(values[j])}")
    return ValueError("labels held a bad class or mass during the call; it has changed since")


def target_error(target: Array, sample: tuple[int, ...], class_axis: int, argument: str = "labels") -> ValueError:
    """The error for the target of a sample in which a kernel has found an entry that is no mass."""
    masses = np.moveaxis(np.asarray(target), class_axis, -1)[sample]
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~(masses >= 0))
    if len(bad) == 0:  # another thread has written it
        return ValueError(f"{argument} held a negative or nan entry during the call; it has changed since")
    name = name_of_entry((*sample[:class_axis], int(bad[0]), *sample[class_axis:]), argument)
    of_what = "labels with the logits' shape hold" if argument == "labels" else f"{argument} holds"
    return ValueError(
        f"{of_what} the mass of each class, 0 or more; {name} is {float(masses[bad[0]])}; of log-probabilities give "
        f"numpy.exp({argument})"
    )


def shape_hint(labels: Array, logits: Array, class_axis: int) -> str:
    """The end of a message about the labels' shape: what would fit."""
    for axis in range(logits.ndim):
        if labels.ndim and sample_shape(logits, axis) == labels.shape:
            return f"; axis={axis} fits"
    if labels.ndim == logits.ndim + 1 and logits.dtype.kind in "iu" and labels.dtype.kind == "f":
        return "; the logits come first, then the labels"
    return without_axis("labels", labels.shape, sample_shape(logits, class_axis))


def holds_whole_numbers(array: Array) -> bool:
    """Whether each entry has the value of an integer, whatever the dtype."""
    if array.dtype.kind in "bc":
        return array.dtype.kind == "b"
    with np.errstate(all="ignore"):
        return bool(np.all(np.isfinite(array) & (array == np.floor(array))))
