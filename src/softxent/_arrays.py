"""The user's arguments as arrays: checks of their dtypes, of the class axis, and of an ``out``.

How arrays reach the kernels is in ``_pieces.py``; what is computed from them, in ``_loss.py`` and ``_softmax.py``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _kernels

Array = npt.NDArray[Any]

# The floats that are computed with, in native byte order.
FLOATS = frozenset(np.dtype(t) for t in (np.float16, np.float32, np.float64))
HALVES = frozenset([np.dtype(np.float16)])  # and ml_dtypes' type


# Types that carry nothing but numbers: NumPy's arrays of these types, and single entries.
PLAIN_ARRAYS = (np.ndarray, np.memmap, np.recarray)
PLAIN_ENTRIES = (float, int, complex, str, bytes, type(None), np.generic)

# What to give in place of a masked array, by argument. For all others it is the array with 0 where it is masked.
WITHOUT_MASK = {
    "logits": "give logits.data, and where=~numpy.ma.getmaskarray(logits), or sample_weight=0 for whole samples",
    "labels": "give labels.filled(-100) with ignore_index=-100; for a distribution labels.filled(0) and where=",
    "where": "give where.filled(False)",
    "out": "give out.data",
}


def as_array(value: npt.ArrayLike, name: str) -> Array:
    """``value`` as a plain array, or an error that names the argument.

    A value that carries more than numbers (a mask, units, a gradient, a graph of work to do) is refused, because the
    rest would be lost.
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
    except (TypeError, RuntimeError) as error:  # a type that cannot be made an array
        raise TypeError(f"{name} cannot be read as a NumPy array; got {type(value).__name__}: {error}") from None
    if array is not value:  # a type of another package may make a masked array of itself
        refuse_what_says_more(array, name)
    return np.asarray(array)


def refuse_what_says_more(value: Any, name: str) -> None:
    """Raise a TypeError if a value, or one of its items, carries more than numbers."""
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
    """What a value of an unusual type carries beside numbers, and what to give instead; None if it is like an array.

    Types of other packages are recognised by their attributes, so that the packages need not be imported.
    """
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
    """Whether arrays of this dtype hold real numbers that we take."""
    return dtype.kind in "bui" or dtype.newbyteorder("=") in FLOATS or is_bfloat16(dtype)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether it is the dtype of ml_dtypes, known by its name. The itemsize comes first, as NumPy's names are slow."""
    return dtype.itemsize == 2 and dtype.name == "bfloat16"


def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of losses and gradients: that of the logits if it is a float, else float64."""
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
    """The logits' shape without the class axis."""
    shape = logits.shape
    return shape[:class_axis] + shape[class_axis + 1 :]


def new_output(logits: Array, class_axis: int, with_classes: bool) -> Array:
    """A new array for results: of the logits' shape and their order in memory, or of the samples' shape."""
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

    It may not overlap the inputs, unless it is the array ``may_be`` itself, entry by entry.
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
    """Raise a TypeError unless ``dtype`` is that of the results, in any byte order, or float32 for half precision."""
    native = dtype.newbyteorder("=")
    if native == result or (native == np.float32 and result.itemsize == 2):
        return
    raise TypeError(f"out must have dtype {result}{' or float32' if result.itemsize == 2 else ''}; got {dtype}")


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share memory. If that is too hard to find out, the answer is yes."""
    try:
        return bool(np.shares_memory(a, b, max_work=100_000))  # type: ignore[arg-type]  # the stub is too narrow
    except np.exceptions.TooHardError:
        return True


def shares_with_itself(array: Array) -> bool:
    """Whether two entries of an array share memory. If that is too hard to find out, the answer is yes."""
    if _kernels.is_nested(array):
        return False
    # Two entries differ first in some axis. Along the axes before it they have the same index, which may be taken as 0,
    # because all indices are alike there. For the same reason the smaller index along the axis itself may be 0.
    for _ in range(array.ndim):
        if overlap(array[:1], array[1:]):
            return True
        array = array[0]
    return False


def without_axis(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """The end of a message: how to get the wanted shape, if it lacks only an axis of length 1."""
    for axis, length in enumerate(shape):
        if length == 1 and shape[:axis] + shape[axis + 1 :] == wanted:
            return f"; use {name}[{', '.join([':'] * axis + ['0'])}]"
    return ""


def name_of_entry(index: Iterable[object], argument: str) -> str:
    """As the user would write the entry of an argument; the argument alone if it is a single number."""
    numbers = ", ".join(str(i) for i in index)
    return f"{argument}[{numbers}]" if numbers else argument


def as_number(value: float, name: str) -> float:
    """``value`` as a float, or a TypeError if it is not one real number."""
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
