"""cross_entropy and cross_entropy_and_grad: what the user asked, checked, allocated and handed to the kernels.

The plain call is tried first, in one step down (``_kernels.plain_cross_entropy``); everything else, and every error,
goes through ``_Problem``. The arithmetic is in the C library.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._arrays import (
    Array,
    OutputPiece,
    as_array,
    as_logits,
    as_real_array,
    check_integer,
    check_out,
    class_axis_last,
    fold,
    indices,
    input_piece,
    is_native,
    pieces,
    result_dtype,
    working_dtype,
)
from ._threads import threads_for

Reduction = Literal["mean", "sum", "none"]

# The two compiled forms, looked up here because finding the form for the arguments takes longer than a small problem.
_KERNEL = {
    np.dtype(np.float32): _kernels.cross_entropy["float"],
    np.dtype(np.float64): _kernels.cross_entropy["double"],
}


def cross_entropy(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
    n_threads: int | None = None,
) -> float | Array:
    """Softmax cross-entropy ``-sum(t * log_softmax(z))`` of logits against labels, in nats.

    Parameters
    ----------
    logits : array_like of shape (..., C, ...)
        Unnormalised log-probabilities ``z``. float32 and float64 are read in place, whatever the strides; float16 is
        computed in float32; integers, bool and lists become float64.
    labels : array_like
        Class indices, of any integer dtype and of the shape of the sample axes (``logits.shape`` without ``axis``);
        or a target distribution ``t`` over the classes, of any real dtype and of the shape of the logits.
    axis : int, default -1
        The class axis. Every other axis is a sample axis.
    ignore_index : int, optional
        Samples with this label have loss 0 and count for nothing in the mean, whatever they hold. By default every
        label must be a class.
    reduction : {"mean", "sum", "none"}, default "mean"
        The mean is over the samples that are not ignored. ``"none"`` gives the loss of each sample.
    out : ndarray, optional
        With ``reduction="none"``: where the losses go; shape of the sample axes, dtype of the logits.
    n_threads : int, optional
        The number of threads; by default :func:`softxent.get_num_threads`. The result is the same, to the bit, for any.

    Returns
    -------
    float or ndarray
        For ``"mean"`` and ``"sum"`` a float, summed in float64. For ``"none"`` an array of the sample axes' shape and
        the logits' dtype. Each loss is within ``4 eps (1 + d)`` of the exact one, relatively, where ``d`` is how far
        the label's logit leads the next class.

    Raises
    ------
    IndexError
        If a label is neither in [0, C) nor ``ignore_index``. The message names the first.
    TypeError
        If ``logits`` or ``labels`` are of a kind that is none of the above, or ``out`` has another dtype.
    ValueError
        If shapes do not fit, there are no classes, ``out`` overlaps an input or is read-only, or an option is out of
        its range.
    numpy.exceptions.AxisError
        If ``axis`` is out of range.

    Notes
    -----
    With index label ``y``, ``L = logsumexp(z) - z_y``; see C. Bishop, *Pattern Recognition and Machine Learning*
    (Springer, 2006), section 4.3.4. It is found as ``(max z - z_y) + log1p(...)``, so that a confident and right
    prediction has its small loss, and not 0.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> softxent.cross_entropy(np.zeros((4, 10)), np.array([3, 1, 4, 1]))  # log(10)
    2.302585092994046
    >>> softxent.cross_entropy([[30.0, 0.0], [0.0, 0.0]], [0, 1], reduction="none")
    array([9.35762297e-14, 6.93147181e-01])
    """
    if out is None and type(axis) is int and axis == -1:
        loss = _kernels.plain_cross_entropy(
            logits, labels, ignore_index, None, reduction, threads_for(n_threads), False
        )
        if loss is not None:
            return loss  # type: ignore[no-any-return]
    problem = _Problem(logits, labels, axis, ignore_index, reduction, n_threads)
    if out is not None:
        problem.write_losses_to(out)
    return problem.solve()


def cross_entropy_and_grad(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    grad_output: npt.ArrayLike | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    n_threads: int | None = None,
) -> tuple[float | Array, Array]:
    """Softmax cross-entropy and its gradient with respect to the logits, in one pass.

    The gradient of a sample is ``p - y``, with ``p = softmax(z)`` and ``y`` the one-hot label, divided by the number
    of samples for the mean: the teaching text's ``delta = softmax(z); delta[range(n), y] -= 1; delta /= n``.

    Parameters
    ----------
    logits, labels, axis, ignore_index, reduction, n_threads
        As for :func:`cross_entropy`. An ignored sample's gradient is exactly 0.
    grad_output : float or array_like, optional
        The upstream gradient, which multiplies this one: a number, or with ``reduction="none"`` one for each sample.
    out : ndarray, optional
        Where the gradient goes: shape and dtype of the logits, any strides. It may be ``logits`` itself. A prepared
        array saves the time of the page faults of a new one, which is often longer than the computation.
    accumulate : bool, default False
        Add the gradient to what ``out`` holds.

    Returns
    -------
    loss : float or ndarray
        As from :func:`cross_entropy`.
    grad : ndarray
        Of the logits' shape and dtype; ``out`` if that was given. With an index label each entry is within
        ``4 eps (1 + |z_k - max z|)`` of the exact one, relatively, and at the label within ``4 eps (1 + d)``.

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`cross_entropy`. On an error nothing has been written, unless it is that another thread wrote a
        bad label while the call was running.

    Notes
    -----
    The chain rule through the softmax Jacobian ``dp_i/dz_j = p_i (1 if i == j else 0) - p_i p_j`` collapses to
    ``p sum(t) - t``; see C. Bishop, *Pattern Recognition and Machine Learning* (Springer, 2006), equation 4.109. At the
    label, ``-(1 - p_y)`` is formed from the other classes' probabilities, and not by subtraction.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> loss, grad = softxent.cross_entropy_and_grad(np.zeros((1, 4)), np.array([2]))
    >>> grad
    array([[ 0.25,  0.25, -0.75,  0.25]])
    """
    if grad_output is None and type(axis) is int and axis == -1 and not accumulate:
        threads = threads_for(n_threads)
        result = _kernels.plain_cross_entropy(logits, labels, ignore_index, out, reduction, threads, True)
        if result is not None:
            return result  # type: ignore[no-any-return]
    problem = _Problem(logits, labels, axis, ignore_index, reduction, n_threads)
    problem.write_gradient_to(out, grad_output, accumulate)
    loss = problem.solve()
    assert problem.grad is not None
    return loss, problem.grad


class _Problem:
    """One general call: its arguments checked, its outputs allocated. ``solve`` computes, once.

    Arrays are kept with the class axis last; ``grad`` is as the user sees it.
    """

    def __init__(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike,
        axis: int,
        ignore_index: int | None,
        reduction: Reduction,
        n_threads: int | None,
    ) -> None:
        self.given_logits = as_array(logits, "logits")
        self.axis = axis
        self.logits = as_logits(self.given_logits, axis)
        self.n_classes = self.logits.shape[-1]
        self.sample_shape = self.logits.shape[:-1]
        self.dtype = working_dtype(self.logits.dtype)
        self.labels, self.target = _labels_or_target(labels, self.given_logits, self.logits, axis)
        self.ignore_index = None if ignore_index is None else check_integer(ignore_index, "ignore_index")
        if self.ignore_index is not None and self.labels is None:
            raise ValueError("ignore_index needs class indices as labels; these have the logits' shape: distributions")
        if self.labels is not None and self.labels.dtype == np.uint64 and (self.ignore_index or 0) >= 2**63:
            # The kernels compare signed numbers: -1 for 2^64 - 1, and no class is negative.
            self.labels, self.ignore_index = self.labels.view(np.int64), (self.ignore_index or 0) - 2**64
        if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
        self.reduction = reduction
        self.threads = threads_for(n_threads)
        self.losses: Array | None = None
        self.grad: Array | None = None
        self.grad_output: Array | None = None
        self.grad_scale = 1.0
        self.accumulate = False
        self.keeps_old_arrays = True  # no array of the caller's will be written

    def write_losses_to(self, out: Array) -> None:
        """Write the losses to an array of the caller's."""
        if self.reduction != "none":
            raise ValueError(f"out takes the losses of reduction='none'; reduction is {self.reduction!r}")
        self.losses = check_out(out, self.logits[..., 0], "the samples", self._inputs("the logits"))
        self.keeps_old_arrays = False

    def write_gradient_to(self, out: Array | None, grad_output: npt.ArrayLike | None, accumulate: bool) -> None:
        """Compute the gradient too, into ``out`` or a new array."""
        if accumulate and out is None:
            raise ValueError("accumulate=True adds to out; give out")
        self.accumulate = bool(accumulate)
        if grad_output is not None:
            upstream = as_real_array(grad_output, "grad_output")
            if upstream.ndim == 0:
                self.grad_scale = float(upstream)
            elif self.reduction != "none":
                raise ValueError(
                    f"grad_output must be a number with reduction={self.reduction!r}; got {upstream.shape}"
                )
            elif upstream.shape != self.sample_shape:
                raise ValueError(f"grad_output must have the samples' shape {self.sample_shape}; got {upstream.shape}")
            else:
                self.grad_output = upstream
        if out is None:
            self.grad = np.empty_like(self.given_logits, dtype=result_dtype(self.logits.dtype), subok=False)
        else:
            self.grad = check_out(out, self.given_logits, "the logits", self._inputs("logits"))
            self.keeps_old_arrays = False

    def _inputs(self, logits_name: str) -> dict[str, Array | None]:
        labels = self.target if self.labels is None else self.labels
        return {logits_name: self.given_logits, "labels": labels, "grad_output": self.grad_output}

    def solve(self) -> float | Array:
        """The loss; the gradient is in ``grad``."""
        n_counted = self._count()
        if self.reduction == "none" and self.losses is None:
            self.losses = np.empty(self.sample_shape, result_dtype(self.logits.dtype))
        if self.reduction == "mean" and n_counted:
            self.grad_scale /= n_counted
        total = self._run() if self.logits.size else 0.0
        if self.reduction == "none":
            assert self.losses is not None
            return self.losses
        if self.reduction == "sum":
            return total
        return total / n_counted if n_counted else math.nan

    def _count(self) -> int:
        """The number of samples that count. Labels are looked at beforehand where that must be known, or where a bad
        one would be found after something of the caller's was overwritten."""
        n_samples = math.prod(self.sample_shape)
        if self.labels is None or not n_samples or (self.keeps_old_arrays and self.ignore_index is None):
            return n_samples
        (folded,) = fold(self.labels.ndim, self.labels)
        assert folded is not None
        counted = 0
        for index in indices(folded.shape[:-2]):
            n = _kernels.check_labels(folded[index], self.n_classes, self.ignore_index)
            if n < 0:
                raise self._label_error()
            counted += n
        return counted

    def _run(self) -> float:
        """Everything, piece by piece; the sum of the losses, if they are not kept."""
        # As plain arrays: a subclass may have its own idea of axes.
        grad = None if self.grad is None else class_axis_last(np.asarray(self.grad), self.axis)
        losses = None if self.losses is None else np.asarray(self.losses)
        z, labels, *others = fold(
            len(self.sample_shape), self.logits, self.labels, self.target, self.grad_output, losses, grad
        )
        target, grad_output, losses, grad = others
        assert z is not None
        dtype, kernel = self.dtype, _KERNEL[self.dtype]
        whole = all(is_native(a, dtype) for a in (z, *others))
        sums = []
        for index in pieces(z, whole):
            with (
                OutputPiece(losses, index, dtype) as losses_piece,
                OutputPiece(grad, index, dtype, load=self.accumulate) as grad_piece,
            ):
                loss, labels_are_good = kernel(
                    input_piece(z, index, dtype),
                    None if labels is None else labels[index],
                    input_piece(target, index, dtype),
                    losses_piece,
                    grad_piece,
                    self.accumulate,
                    self.grad_scale,
                    input_piece(grad_output, index, dtype),
                    self.ignore_index,
                    self.threads,
                )
                if not labels_are_good:
                    raise self._label_error()
            sums.append(loss)
        # In order, and so the same for any number of threads. fsum would raise where infinities of both signs meet.
        return sums[0] if len(sums) == 1 else float(np.sum(sums))

    def _label_error(self) -> IndexError:
        """The error that names the first label that is no class."""
        assert self.labels is not None
        labels, n_classes = self.labels.copy(), self.n_classes  # another thread may be writing them
        bad = (labels < 0) | (labels >= n_classes)
        if self.ignore_index is not None:
            bad &= labels != self.ignore_index
        if not np.any(bad):
            return IndexError(f"labels held a value outside [0, {n_classes}) during the call; it has changed since")
        where = np.unravel_index(int(np.argmax(bad)), labels.shape)
        value = int(labels[where])
        name = f"labels[{', '.join(str(int(i)) for i in where)}]" if where else "labels"
        hint = f"; ignore_index={value} would leave such samples out" if self.ignore_index is None else ""
        return IndexError(f"{name} is {value}, which is not a class in [0, {n_classes}){hint}")


def _labels_or_target(
    labels: npt.ArrayLike, given_logits: Array, logits: Array, axis: int
) -> tuple[Array | None, Array | None]:
    """Class indices, or a target distribution with the class axis last: told by the number of axes."""
    array = as_array(labels, "labels")
    if array.dtype.kind in "OUSMm":
        raise TypeError(f"labels must hold real numbers (class indices or a distribution); got dtype {array.dtype}")
    if array.ndim == given_logits.ndim:
        target = as_real_array(array, "labels")
        if target.shape != given_logits.shape:
            raise ValueError(
                f"labels with as many axes as the logits are distributions, of the logits' shape {given_logits.shape}; "
                f"got {target.shape}"
            )
        return None, class_axis_last(target, axis)
    if array.ndim != given_logits.ndim - 1 or array.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels must have the samples' shape {logits.shape[:-1]} (class indices) or the logits' shape "
            f"{given_logits.shape} (distributions); got {array.shape}"
        )
    if array.size == 0 and array.dtype == np.float64 and not isinstance(labels, np.ndarray):
        array = array.astype(np.intp)  # an empty list has no dtype of its own
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels that are class indices must have an integer dtype; got {array.dtype}")
    native = array.dtype.newbyteorder("=")
    return (array if is_native(array, native) else array.astype(native)), None
