# What _kernels.pyx offers to the Python floor.

from typing import Any, Protocol

import numpy.typing as npt

_Array = npt.NDArray[Any]

OPENMP_VERSION: int

def usable_isas() -> list[str]: ...
def isa_in_use() -> str: ...
def use_isa(name: str | None) -> None: ...
def check_labels(labels: _Array, n_classes: int, ignore_index: int | None) -> int: ...
def plain_cross_entropy(
    logits: object,
    labels: object,
    ignore_index: object,
    out: object,
    reduction: object,
    n_threads: int,
    with_grad: bool,
) -> Any: ...

class _CrossEntropy(Protocol):
    def __call__(
        self,
        logits: _Array | None,
        labels: _Array | None,
        target: _Array | None,
        loss: _Array | None,
        out: _Array | None,
        accumulate: bool,
        grad_scale: float,
        grad_output: _Array | None,
        ignore_index: int | None,
        n_threads: int,
    ) -> tuple[float, bool]: ...

class _Softmax(Protocol):
    def __call__(
        self, logits: _Array | None, op: str, out: _Array | None, lse: _Array | None, n_threads: int
    ) -> None: ...

# One compiled form for each dtype, by the name of its C type.
cross_entropy: dict[str, _CrossEntropy]
softmax: dict[str, _Softmax]
