"""The Kullback-Leibler divergence that the user calls, and its gradient."""

from __future__ import annotations

from typing import Any, Literal, Never, TypedDict, Unpack, overload

import numpy.typing as npt

from . import _kernels
from ._arrays import Array, as_real_array
from ._labels import SparseTarget, check_one_hot, target_error
from ._options import Options, unknown_keyword
from ._pieces import compute, output
from ._problem import Problem, Reduction
from ._threads import threads_for


class DivergenceOptions(TypedDict, total=False):
    """What both functions take, for the types of the second overloads."""

    axis: int
    target_logits: bool
    temperature: npt.ArrayLike
    where: npt.ArrayLike | None
    sample_weight: npt.ArrayLike | None
    normalizer: float | None
    n_threads: int | None


class Divergence(Problem):
    """A divergence to be computed: a problem whose target has another meaning, and may hold logits."""

    def __init__(self, target_logits: bool, *arguments: Any) -> None:
        self.target_logits = bool(target_logits)
        super().__init__(*arguments)

    def _take_labels(self, labels: npt.ArrayLike | SparseTarget) -> None:
        call, self.sparse = self.call, None
        if isinstance(labels, SparseTarget):
            raise TypeError("target must be an array; got a SparseTarget, which the losses take as labels")
        target = as_real_array(labels, "target")
        if target.shape != call.logits.shape:
            raise ValueError(f"target must have the logits' shape {call.logits.shape}; got {target.shape}")
        call.target_holds_logits = self.target_logits
        call.target = call.originals["target"] = target
        if not self.target_logits:
            check_one_hot(target, call.class_axis, "target")

    def _check_target(self) -> None:
        """As a loss does; but where classes are left out, their masses are not looked at."""
        if self.target_logits:
            return
        if self.call.where is None:
            super()._check_target()
            return
        losses, self.call.loss = self.call.loss, output(self.call, None, with_classes=False)
        compute(self.call, _kernels.CHECK_KL, self.n_threads)
        self.call.loss = losses

    def _bad_sample_error(self, sample: tuple[int, ...]) -> ValueError:
        assert self.call.target is not None
        return target_error(self.call.target, sample, self.call.class_axis, "target")


@overload
def kl_divergence(
    logits: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    axis: int = -1,
    target_logits: bool = False,
    temperature: npt.ArrayLike = 1.0,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    normalizer: float | None = None,
    n_threads: int | None = None,
) -> float: ...
@overload
def kl_divergence(
    logits: npt.ArrayLike, target: npt.ArrayLike, *, reduction: Literal["none"], **options: Unpack[DivergenceOptions]
) -> Array: ...
def kl_divergence(
    logits: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    axis: int = -1,
    target_logits: bool = False,
    temperature: npt.ArrayLike = 1.0,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    n_threads: int | None = None,
    **unknown: Never,
) -> float | Array:
    """Kullback-Leibler divergence ``sum(t (log(t) - log(p)))`` of a target from the softmax of the logits, in nats.

    Parameters
    ----------
    logits : array_like of shape (..., C, ...)
        As for :func:`cross_entropy`: the student's, in knowledge distillation. ``p = softmax(logits / temperature)``.
    target : array_like of the logits' shape
        The probabilities ``t``, of any real dtype, none of them negative; or with ``target_logits`` a teacher's logits,
        and ``t = softmax(target / temperature)``.
    axis : int, default -1
        The class axis.
    target_logits : bool, default False
        Whether ``target`` holds logits.
    temperature : float, default 1
        Divides the logits of both. The result is not multiplied by its square, as some do: ``grad_output`` can.
    where : array_like of bool, optional
        Broadcasts to the logits. The divergence is of the classes for which it is True; the others are not looked at.
    sample_weight, reduction, normalizer, n_threads
        As for :func:`cross_entropy`. The mean is over ``sum(sample_weight)``, which is the number of samples without.

    Returns
    -------
    float or ndarray
        As from :func:`cross_entropy`. It is never negative. From logits it has a relative error of a few eps, also
        where teacher and student nearly agree; from probabilities the error is within a few
        ``eps (KL + sqrt(KL) + eps)``. inf where a class has probability 0 and its target does not.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`cross_entropy`.

    Notes
    -----
    S. Kullback and R. Leibler, *On Information and Sufficiency* (1951). What is computed is
    ``sum(t (log(t) - log(p))) + 1 - sum(t)``: the last two terms vanish where ``t`` sums to 1, and make each class's
    term ``t (x - 1 + exp(-x))``, with ``x = log(t / p)``, which is 0 or more. With a temperature: G. Hinton, O. Vinyals
    and J. Dean, *Distilling the Knowledge in a Neural Network* (2015), section 2.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> softxent.kl_divergence(np.log([[1.0, 1.0, 2.0]]), [[0.25, 0.25, 0.5]])
    0.0
    >>> softxent.kl_divergence([[0.0, 1.0]], [[0.0, 1.0 + 2.0**-20]], target_logits=True)
    8.940872952538197e-14
    """
    if unknown:
        raise unknown_keyword(kl_divergence, unknown)
    options = Options(sample_weight=sample_weight, where=where, temperature=temperature)
    threads = threads_for(n_threads)
    problem = Divergence(target_logits, logits, target, axis, None, reduction, normalizer, threads, options)
    return problem.solve(_kernels.KL)


@overload
def kl_divergence_and_grad(
    logits: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    axis: int = -1,
    target_logits: bool = False,
    temperature: npt.ArrayLike = 1.0,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    normalizer: float | None = None,
    grad_output: npt.ArrayLike | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    n_threads: int | None = None,
) -> tuple[float, Array]: ...
@overload
def kl_divergence_and_grad(
    logits: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    reduction: Literal["none"],
    grad_output: npt.ArrayLike | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    **options: Unpack[DivergenceOptions],
) -> tuple[Array, Array]: ...
def kl_divergence_and_grad(
    logits: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    axis: int = -1,
    target_logits: bool = False,
    temperature: npt.ArrayLike = 1.0,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad_output: npt.ArrayLike | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    n_threads: int | None = None,
    **unknown: Never,
) -> tuple[float | Array, Array]:
    """Kullback-Leibler divergence and its gradient with respect to the logits, in one pass.

    Parameters
    ----------
    logits, target, axis, target_logits, temperature, where, sample_weight, reduction, normalizer, n_threads
        As for :func:`kl_divergence`.
    grad_output, out, accumulate
        As for :func:`cross_entropy_and_grad`.

    Returns
    -------
    loss : float or ndarray
        As from :func:`kl_divergence`.
    grad : ndarray of the logits' shape and dtype
        ``(p sum(t) - t) / temperature``, times the sample's weight, divided by the normalizer in a mean. From logits it
        is formed without cancellation where teacher and student nearly agree. Exactly 0 where ``where`` is False.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`cross_entropy_and_grad`.

    Notes
    -----
    It is the cross-entropy's gradient: the target's own entropy does not depend on the logits. See
    :func:`cross_entropy_and_grad`.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> loss, grad = softxent.kl_divergence_and_grad(np.log([[1.0, 1.0, 2.0]]), [[0.5, 0.25, 0.25]])
    >>> grad
    array([[-0.25,  0.  ,  0.25]])
    """
    if unknown:
        raise unknown_keyword(kl_divergence_and_grad, unknown)
    options = Options(sample_weight=sample_weight, where=where, temperature=temperature)
    threads = threads_for(n_threads)
    problem = Divergence(target_logits, logits, target, axis, None, reduction, normalizer, threads, options)
    problem.set_gradient(grad_output, out, accumulate)
    return problem.solve(_kernels.KL_GRAD, out=out), problem.call.out
