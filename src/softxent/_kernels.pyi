# What _kernels.pyx offers to the Python floor.

from typing import Any, Protocol

import numpy.typing as npt

_Array = npt.NDArray[Any]

OPENMP_VERSION: int

def limit_of_threads(n_threads: int) -> tuple[int, str | None]: ...
def usable_isas() -> list[str]: ...
def isa_in_use() -> str: ...
def use_isa(name: str | None) -> None: ...
def check_labels(n_threads: int, labels: _Array, n_classes: int, ignore_index: int | None) -> int: ...
def plain_cross_entropy(
    with_grad: bool,
    n_threads: int,
    logits: object,
    labels: object,
    axis: object,
    class_weight: object,
    sample_weight: object,
    where: object,
    ignore_index: object,
    label_smoothing: object,
    temperature: object,
    softcap: object,
    z_loss: object,
    base: object,
    reduction: object,
    normalizer: object,
    out: object,
) -> Any: ...

class _Compute(Protocol):
    def __call__(
        self,
        op: str,
        n_threads: int,
        logits: _Array,
        *,
        labels: _Array | None = None,
        ignore_index: int | None = None,
        target: _Array | None = None,
        where: _Array | None = None,
        direction: _Array | None = None,
        sample_weight: _Array | None = None,
        grad_output: _Array | None = None,
        class_weight: _Array | None = None,
        options: tuple[float, float, float, float, float] | None = None,
        loss: _Array | None = None,
        out: _Array | None = None,
        hess: _Array | None = None,
        hess_kind: str = "exact",
        rank: _Array | None = None,
        top: _Array | None = None,
        accumulate: bool = False,
        grad_scale: float = 1.0,
    ) -> tuple[float, bool]: ...

class _TotalWeight(Protocol):
    def __call__(
        self,
        labels: _Array,
        n_classes: int,
        ignore_index: int | None,
        sample_weight: _Array | None,
        class_weight: _Array | None,
    ) -> float: ...

# One compiled form for each dtype, by the name of its C type.
compute: dict[str, _Compute]
total_weight: dict[str, _TotalWeight]
