# What _kernels.pyx offers to the Python floor.

from typing import Any, Final, final

import numpy.typing as npt

_Array = npt.NDArray[Any]

OPENMP_VERSION: int

class BadSample(Exception): ...

@final
class Operation:
    has_losses: Final[bool]
    has_out: Final[bool]
    has_hess: Final[bool]
    has_ranks: Final[bool]

CROSS_ENTROPY: Operation
GRAD: Operation
GRAD_HESS: Operation
RANK: Operation
HVP: Operation
CHECK_TARGET: Operation
SOFTMAX: Operation
LOG_SOFTMAX: Operation
LOGSUMEXP: Operation
ENTROPY: Operation
ENTROPY_GRAD: Operation
KL: Operation
CHECK_KL: Operation
KL_GRAD: Operation
JVP: Operation
LOG_JVP: Operation
LOG_VJP: Operation
JACOBIAN: Operation
HESS_KINDS: dict[str, int]

@final
class Field:
    name: Final[str]
    is_output: Final[bool]
    has_classes: Final[bool]
    is_real: Final[bool]
    may_be_half: Final[bool]

FIELDS: tuple[Field, ...]

def limit_of_threads(n_threads: int) -> tuple[int, str | None]: ...
def usable_isas() -> list[str]: ...
def isa_in_use() -> str: ...
def use_isa(name: str | None) -> None: ...
def is_behaved(array: _Array) -> bool: ...
def are_apart(a: _Array, b: _Array) -> bool: ...
def is_nested(array: _Array) -> bool: ...
def is_same_view(a: _Array, b: _Array) -> bool: ...
def sample_axes(array: _Array, class_axis: int) -> list[int]: ...

@final
class Call:
    class_axis: int
    f32: bool
    logits: _Array
    labels: _Array | None
    target: _Array | None
    classes: _Array | None
    masses: _Array | None
    temperatures: _Array | None
    where: _Array | None
    sample_weight: _Array | None
    direction: _Array | None
    grad_output: _Array | None
    class_weight: _Array | None
    originals: dict[str, _Array]
    loss: Any  # the outputs: arrays, where they are wanted
    out: Any
    hess: Any
    rank: Any
    top: Any
    temperature_grad: Any
    label_smoothing: float
    temperature: float
    softcap: float
    z_loss: float
    log_base: float
    grad_scale: float
    ignore_index: int | None
    hess_kind: int
    accumulate: bool
    target_holds_logits: bool
    def arrays(self) -> list[_Array | None]: ...
    def take_logits(self, logits: object, axis: object) -> bool: ...
    def take_labels(self, labels: object) -> bool: ...
    def take_sample_weight(self, weights: object) -> bool: ...
    def take_class_weight(self, weights: object) -> bool: ...
    def can_write(self, out: object, with_classes: bool, may_be_logits: bool) -> bool: ...
    def new_output(self, with_classes: bool) -> _Array | None: ...
    n_samples: Final[int]
    def run(self, operation: Operation, n_threads: int, arrays: list[_Array | None] | None = None) -> bool: ...
    total: Final[float]
    def count_labels(self, n_threads: int) -> int: ...
    def total_weight(self, arrays: list[_Array | None] | None = None) -> float | None: ...

def not_defaults(options: tuple[object, ...], defaults: tuple[object, ...]) -> list[int]: ...
def plain_cross_entropy(
    with_grad: bool,
    n_threads: int,
    logits: object,
    labels: object,
    axis: object,
    ignore_index: object,
    reduction: object,
    normalizer: object,
    out: object,
    options: tuple[object, ...],
    defaults: tuple[object, ...],
) -> Any: ...
