"""The contenders that bring their own arrays, threads or compilers: PyTorch, JAX, scikit-learn, Numba.

Each function is given a ``Problem`` and returns its calls, as ``contenders`` has it. Whatever a user could do once,
before a training loop, is done outside of them: compiling, converting labels, preparing memory for results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .cells import Array, Problem

Calls = dict[str, Callable[[], Any]]  # by task


def tensor(array: Array) -> Any:
    """A PyTorch tensor on the same memory."""
    import torch

    if array.dtype.name == "bfloat16":  # NumPy does not know this type by itself, nor torch.from_numpy
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def numpy_of_tensor(gradient: Any) -> Array:
    """The way back."""
    import torch

    gradient = gradient.detach()
    return np.asarray((gradient.float() if gradient.dtype == torch.bfloat16 else gradient).numpy())


def torch_mean_loss(problem: Problem) -> Callable[[Any, Any], Any]:
    """The mean loss of tensors; for half precision averaged in float32, as the sum would overflow float16."""
    from torch.nn.functional import cross_entropy

    if problem.logits.itemsize > 2:
        return cross_entropy
    return lambda logits, target: cross_entropy(logits, target, reduction="none").float().mean()


def torch_eager(problem: Problem) -> Calls:
    """PyTorch as it is. For the gradient channels are copied last: the one with respect to another axis is slow."""
    import torch

    torch.set_num_threads(problem.n_threads)
    mean_loss = torch_mean_loss(problem)

    def classes_last(array: Any) -> Any:
        return array.movedim(problem.axis, -1).reshape(-1, problem.n_classes)

    logits, target = tensor(problem.logits), tensor(problem.labels)
    flat_target = classes_last(target) if problem.distributions else target.reshape(-1)
    leaf = tensor(problem.logits).requires_grad_()

    def loss_and_grad() -> tuple[Any, Any]:
        loss = mean_loss(classes_last(leaf), flat_target)
        (grad,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), grad

    return {"loss": lambda: mean_loss(logits, target), "loss+grad": loss_and_grad}


def torch_compile(problem: Problem) -> Calls:
    """PyTorch compiled: loss and gradient as one graph, which writes the gradient into the prepared array."""
    import torch

    torch.set_num_threads(problem.n_threads)
    mean_loss = torch_mean_loss(problem)
    torch._dynamo.reset()  # forgets the last cell, so that no limit on recompilations is met
    logits, target, prepared = (tensor(array) for array in (problem.logits, problem.labels, problem.prepared))

    def loss_and_grad(logits: Any, target: Any, prepared: Any) -> Any:
        grad, loss = torch.func.grad_and_value(mean_loss)(logits, target)
        prepared.copy_(grad)
        return loss

    compiled_loss = torch.compile(mean_loss, dynamic=False)
    compiled = torch.compile(loss_and_grad, dynamic=False)
    return {
        "loss": lambda: compiled_loss(logits, target),
        "loss+grad": lambda: (compiled(logits, target, prepared), prepared),
    }


def jax_jit(problem: Problem) -> Calls:
    """JAX with optax's losses; the last gradient is donated, so that its memory holds the next one."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", problem.logits.dtype == np.float64)
    logits = jax.device_put(problem.logits)
    target = jax.device_put(problem.labels if problem.distributions else problem.labels.astype(np.int32))
    grad = jax.device_put(problem.prepared, may_alias=False)
    losses = optax.softmax_cross_entropy if problem.distributions else optax.softmax_cross_entropy_with_integer_labels

    def mean_loss(logits: Any, target: Any) -> Any:
        return losses(logits, target, axis=problem.axis).mean()

    compiled_loss = jax.jit(mean_loss)
    compiled = jax.jit(
        lambda logits, target, _: jax.value_and_grad(mean_loss)(logits, target), donate_argnums=2, keep_unused=True
    )

    def loss_and_grad() -> tuple[Any, Any]:
        nonlocal grad
        loss, grad = jax.block_until_ready(compiled(logits, target, grad))
        return loss, grad

    return {"loss": lambda: compiled_loss(logits, target).block_until_ready(), "loss+grad": loss_and_grad}


def sklearn_loss(problem: Problem) -> Calls:
    """scikit-learn's private multinomial loss, into prepared arrays. A weight of 1/n makes the sum a mean."""
    from sklearn._loss import HalfMultinomialLoss

    z, n, n_threads = problem.logits, problem.n_samples, problem.n_threads
    losses = HalfMultinomialLoss(n_classes=problem.n_classes)
    labels, weights, loss_out = problem.labels.astype(z.dtype), np.full(n, 1 / n, z.dtype), np.full(n, 0, z.dtype)

    def loss() -> Any:
        return losses.loss(labels, z, weights, loss_out, n_threads).sum()

    def loss_and_grad() -> tuple[Any, Array]:
        loss, grad = losses.loss_gradient(labels, z, weights, loss_out, problem.prepared, n_threads)
        return loss.sum(), grad

    return {"loss": loss, "loss+grad": loss_and_grad}


def numba_loops(problem: Problem) -> Calls:
    """Numba's loops, into the prepared array."""
    from . import numba_kernels as kernels

    z, y, out = problem.logits, problem.labels, problem.prepared
    loss, loss_and_grad = kernels.loss_rows, kernels.loss_and_grad_rows
    if problem.distributions:
        loss, loss_and_grad = kernels.loss_rows_distribution, kernels.loss_and_grad_rows_distribution
    elif z.ndim > 2:
        loss, loss_and_grad = kernels.loss_channels, kernels.loss_and_grad_channels
        n_samples, n_classes = z.shape[:2]
        z, out = (array.reshape(n_samples, n_classes, -1) for array in (z, out))
        y = y.reshape(n_samples, -1)
    return {"loss": lambda: loss(z, y), "loss+grad": lambda: (loss_and_grad(z, y, out), problem.prepared)}
