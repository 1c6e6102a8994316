"""Softmax cross-entropy and its fused gradient for NumPy arrays, at the speed of memory.

The plain definition of everything here, in NumPy, is the module ``softxent.reference``.
"""

from ._config import get_cmake_dir, get_include, get_library_dir, show_config
from ._divergence import kl_divergence, kl_divergence_and_grad
from ._labels import SparseTarget
from ._loss import (
    cross_entropy,
    cross_entropy_and_grad,
    cross_entropy_and_rank,
    cross_entropy_grad_hess,
    cross_entropy_hvp,
)
from ._softmax import (
    entropy,
    entropy_and_grad,
    log_softmax,
    log_softmax_jvp,
    log_softmax_vjp,
    logsumexp,
    softmax,
    softmax_jacobian,
    softmax_jvp,
    softmax_vjp,
)
from ._threads import get_num_threads, set_num_threads
from ._version import __version__

__all__ = [
    "SparseTarget",
    "__version__",
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_entropy_and_rank",
    "cross_entropy_grad_hess",
    "cross_entropy_hvp",
    "entropy",
    "entropy_and_grad",
    "get_cmake_dir",
    "get_include",
    "get_library_dir",
    "get_num_threads",
    "kl_divergence",
    "kl_divergence_and_grad",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "set_num_threads",
    "show_config",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
]
