"""Shapes with a class axis, and memory layouts in which an array may come."""

import numpy as np

SHAPES = [
    ((5,), 0),
    ((4, 5), 1),
    ((4, 5), 0),
    ((3, 4, 5), 1),
    ((2, 3, 4, 5), 2),
    ((2, 50, 3, 4), 1),
    ((50, 2, 3), 0),
    ((7, 1, 100), -1),
    ((1, 40, 1), 1),
    ((2, 3, 2, 3, 4), -3),
    ((33, 20), -1),
    ((20, 70), -2),
]
LAYOUTS = ["C", "Fortran", "every second", "reversed", "permuted", "padded"]


def laid_out(values, layout, dtype=None):
    """The same values in another memory layout."""
    values = np.asarray(values, dtype)
    if values.ndim == 0:
        return values.copy()
    if layout == "C":
        return np.array(values, order="C")
    if layout == "Fortran":
        return np.array(values, order="F")
    if layout == "every second":
        wide = np.zeros([2 * n for n in values.shape], values.dtype)
        view = wide[tuple(slice(None, None, 2) for _ in values.shape)]
    elif layout == "reversed":
        view = np.zeros_like(values, order="C")[tuple(slice(None, None, -1) for _ in values.shape)]
    elif layout == "permuted":
        order = np.roll(np.arange(values.ndim), 1)
        view = np.zeros([values.shape[i] for i in order], values.dtype).transpose(np.argsort(order))
    else:
        view = np.zeros([n + 1 for n in values.shape], values.dtype)[tuple(slice(1, None) for _ in values.shape)]
    view[...] = values
    return view
