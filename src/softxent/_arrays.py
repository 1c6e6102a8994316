"""What the user gave, as arrays: dtypes, the class axis, and whether an `out` will do.

How the kernels are handed what is here is in ``_pieces.py``; what is computed, in ``_loss.py`` and ``_softmax.py``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _kernels

Array = npt.NDArray[Any]

# In native byte order.
FLOATS = frozenset(np.dtype(t) for t in (np.float16, np.float32, np.float64))
HALVES = frozenset([np.dtype(np.float16)])  # and ml_dtypes' type


# What says no more than its numbers do: NumPy's arrays of these types, and single entries.
PLAIN_ARRAYS = (np.ndarray, np.memmap, np.recarray)
PLAIN_ENTRIES = (float, int, complex, str, bytes, type(None), np.generic)

# What would do for a masked array. For other arguments: 0 in place of what is masked.
WITHOUT_MASK = {
    "logits": "give logits.data, and where=~numpy.ma.getmaskarray(logits), or sample_weight=0 for whole samples",
    "labels": "give labels.filled(-100) with ignore_index=-100; for a distribution labels.filled(0) and where=",
    "where": "give where.filled(False)",
    "out": "give out.data",
}


def as_array(value: npt.ArrayLike, name: str) -> Array:
    """``value`` as a plain array, or an error that knows the argument's name.

    What carries more than numbers (a mask, units, a gradient, a graph of work to do) is refused: it would be lost.
    """
    if type(value) is np.ndarray:
        return value
    refuse_what_says_more(value, name)
    try:
        array = np.asanyarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array, or lists of one length; got {type(value).__name__}: {error}"
        ) from None
    except (TypeError, RuntimeError) as error:  # of a type that will not be made an array
        raise TypeError(f"{name} cannot be read as a NumPy array; got {type(value).__name__}: {error}") from None
    if array is not value:  # what a type of another package makes of itself may be masked
        refuse_what_says_more(array, name)
    return np.asarray(array)


def refuse_what_says_more(value: Any, name: str) -> None:
    """A TypeError for what is not an array of numbers alone, or has such a thing among its items."""
    kind = type(value)
    if kind in PLAIN_ARRAYS or issubclass(kind, PLAIN_ENTRIES):
        return
    if issubclass(kind, (list, tuple)):
        not_plain = {k for k in set(map(type, value)) if not issubclass(k, PLAIN_ENTRIES)}
        for item in value if not_plain else ():
            if type(item) in not_plain:
                refuse_what_says_more(item, name)
        return
    more = what_it_says_more(value, name)
    if more is not None:
        raise TypeError(f"{name} must be an array of plain numbers; got {more}")


def what_it_says_more(value: Any, name: str) -> str | None:
    """What a value of an unusual type is, and what would do; None if it is like an array. Types of other packages are
    known by what they have: the packages are not needed."""
    kind = type(value)
    if isinstance(value, np.ma.MaskedArray):
        return f"a masked array, whose mask would be lost: {WITHOUT_MASK.get(name, f'give {name}.filled(0)')}"
    if isinstance(value, np.matrix):
        return f"a numpy.matrix, which has its own idea of axes: give numpy.asarray({name})"
    owner = value if isinstance(value, np.ndarray) else kind  # others may have attributes of any name
    if getattr(owner, "units", None) is not None or getattr(owner, "unit", None) is not None:
        return f"{kind.__name__}, which has units that would be lost: give its plain numbers, in the unit that you mean"
    if hasattr(kind, "todense"):
        dense = "toarray" if hasattr(kind, "toarray") else "todense"
        return f"a sparse {kind.__name__}: give {name}.{dense}() if there is the memory for it"
    if hasattr(kind, "__dask_graph__") and value.__dask_graph__() is not None:
        return f"a dask {kind.__name__}, all of which would be computed: give {name}.compute(), or block after block"
    if getattr(value, "requires_grad", False) is True:
        return f"a tensor that needs grad, which would get none: give {name}.detach()"
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        return f"a bfloat16 tensor: give {name}.view(torch.uint16).numpy().view(ml_dtypes.bfloat16), which is no copy"
    return None


def as_real_array(value: npt.ArrayLike, name: str) -> Array:
    """``value`` as an array of real numbers, or a TypeError that says what it was."""
    if type(value) is np.ndarray and value.dtype in FLOATS:
        return value
    array = as_array(value, name)
    if is_real(array.dtype):
        return array
    raise TypeError(
        f"{name} must hold real numbers (float32, float64, float16, integers or bool); got dtype {array.dtype}"
    )


def as_direction(value: npt.ArrayLike, name: str, logits: Array) -> Array:
    """``value`` as an array of real numbers of the logits' shape."""
    array = as_real_array(value, name)
    if array.shape != logits.shape:
        raise ValueError(f"{name} must have the logits' shape {logits.shape}; got {array.shape}")
    return array


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether it is of real numbers that are taken here."""
    return dtype.kind in "bui" or dtype.newbyteorder("=") in FLOATS or is_bfloat16(dtype)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """ml_dtypes' type, known by its name: that package is not needed here. NumPy takes long to tell names."""
    return dtype.itemsize == 2 and dtype.name == "bfloat16"


def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of losses and gradients: the logits' own if it is a float's, else float64."""
    if dtype in FLOATS:
        return dtype
    if dtype.kind == "f" or is_bfloat16(dtype):
        return dtype.newbyteorder("=")
    return np.dtype(np.float64)


def is_computed_in_float32(dtype: np.dtype[Any]) -> bool:
    """Whether the kernels compute with logits of this dtype in float32; else it is float64."""
    return result_dtype(dtype).itemsize < 8


def as_logits(logits: npt.ArrayLike, axis: int) -> tuple[Array, int]:
    """The logits as a real array, and its class axis, counted from the first."""
    z = as_real_array(logits, "logits")
    n_axes = z.ndim
    if n_axes == 0:
        raise ValueError("logits must have at least one axis, the classes; got a single number")
    axis = check_integer(axis, "axis")
    if not -n_axes <= axis < n_axes:
        raise np.exceptions.AxisError(axis, n_axes)
    axis %= n_axes
    if z.shape[axis] == 0:
        raise ValueError("logits must have at least one class; their class axis is empty")
    return z, axis


def sample_shape(logits: Array, class_axis: int) -> tuple[int, ...]:
    """The shape without the class axis."""
    shape = logits.shape
    return shape[:class_axis] + shape[class_axis + 1 :]


def new_output(logits: Array, class_axis: int, with_classes: bool) -> Array:
    """An array for results of the logits' shape, in the same order in memory; or of the samples'."""
    dtype = result_dtype(logits.dtype)
    if with_classes:
        return np.empty_like(logits, dtype=dtype, subok=False)
    return np.empty(sample_shape(logits, class_axis), dtype)


def check_out(
    out: Array,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    name_of_shape: str,
    inputs: Iterable[tuple[str, Array | None]],
    may_be: Array | None = None,
) -> Array:
    """``out`` itself, if results of this shape for logits of this dtype can be written to it.

    It may not overlap the inputs, but that it may be the array ``may_be``, entry by entry.
    """
    if not isinstance(out, np.ndarray):
        raise TypeError(
            f"out must be a NumPy array; got {type(out).__name__}: give numpy.empty({shape}, {result_dtype(dtype)})"
        )
    refuse_what_says_more(out, "out")
    if out.shape != shape:
        raise ValueError(f"out must have the shape of {name_of_shape}, {shape}; got {out.shape}")
    if out.dtype != dtype or dtype not in FLOATS:
        check_out_dtype(out.dtype, result_dtype(dtype))
    if not out.flags.writeable:
        raise ValueError("out is read-only; give an array that can be written to")
    if shares_with_itself(out):
        raise ValueError(f"out has entries that share their memory (strides {out.strides}); give an array of its own")
    for name, array in inputs:
        if array is None or _kernels.are_apart(out, array) or (array is may_be and _kernels.is_same_view(out, array)):
            continue
        if overlap(out, array):
            raise ValueError(f"out overlaps {name} in memory; give an array of its own, or the logits themselves")
    return out


def check_out_dtype(dtype: np.dtype[Any], result: np.dtype[Any]) -> None:
    """The results' own, in any byte order; or float32 for those that would be halves: it is what they are formed in."""
    native = dtype.newbyteorder("=")
    if native == result or (native == np.float32 and result.itemsize == 2):
        return
    raise TypeError(f"out must have dtype {result}{' or float32' if result.itemsize == 2 else ''}; got {dtype}")


def overlap(a: Array, b: Array) -> bool:
    """Whether they share memory; where that is too hard to tell, yes."""
    try:
        return bool(np.shares_memory(a, b, max_work=100_000))  # type: ignore[arg-type]  # the stub is too narrow
    except np.exceptions.TooHardError:
        return True


def shares_with_itself(array: Array) -> bool:
    """Whether two of its entries share memory; where that is too hard to tell, yes."""
    if _kernels.is_nested(array):
        return False
    # Of two entries, let this be the first axis in which they differ. In those before it they have the same index,
    # which may as well be 0, as all places are alike; and so may the lesser of their indices along this one.
    for _ in range(array.ndim):
        if overlap(array[:1], array[1:]):
            return True
        array = array[0]
    return False


def without_axis(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """For the end of a message: how to get the wanted shape, if that is to leave out an axis of length 1."""
    for axis, length in enumerate(shape):
        if length == 1 and shape[:axis] + shape[axis + 1 :] == wanted:
            return f"; use {name}[{', '.join([':'] * axis + ['0'])}]"
    return ""


def as_number(value: float, name: str) -> float:
    """``value`` as a float, if it is one real number."""
    if type(value) is float:
        return value
    array = as_array(value, name)
    if array.ndim:
        raise TypeError(f"{name} must be a number; got an array of shape {array.shape}")
    if not is_real(array.dtype):
        raise TypeError(f"{name} must be a number; got {value!r}")
    return float(array)


def check_integer(value: int, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None
