"""Softmax cross-entropy and its fused gradient for NumPy arrays, at the speed of memory.

The plain definition of everything here, in NumPy, is the module ``softxent.reference``.
"""

from ._config import get_cmake_dir, get_include, get_library_dir, show_config
from ._loss import (
    cross_entropy,
    cross_entropy_and_grad,
    cross_entropy_and_rank,
    cross_entropy_grad_hess,
    cross_entropy_hvp,
)
from ._softmax import log_softmax, logsumexp, softmax, softmax_jacobian, softmax_jvp, softmax_vjp
from ._threads import get_num_threads, set_num_threads
from ._version import __version__

__all__ = [
    "__version__",
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_entropy_and_rank",
    "cross_entropy_grad_hess",
    "cross_entropy_hvp",
    "get_cmake_dir",
    "get_include",
    "get_library_dir",
    "get_num_threads",
    "log_softmax",
    "logsumexp",
    "set_num_threads",
    "show_config",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
]
