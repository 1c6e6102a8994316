"""Many calls for a while, of all kinds and from many threads: right answers or errors by name, and flat memory.

    python tools/soak.py [--seconds 60] [--threads 64] [--seed 0]

There are three parts. First, all threads call at once, with problems whose answers are known to the bit. Second, one
thread calls while another changes the inputs. Third, one thread calls with arguments of every kind, valid or not, and
an output between guards. The exit status is 1 if anything is wrong.
"""

import argparse
import collections
import ctypes
import gc
import inspect
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np

import softxent

REFUSALS = (TypeError, ValueError, IndexError, MemoryError)  # AxisError is a ValueError and an IndexError
GROWTH = 8_000_000  # bytes, by the habits of malloc and Python
ROUNDS = 6

Options = dict[str, object]
Found = TypeVar("Found")


def resident() -> int:
    """The bytes of this process that are in memory, without those that malloc keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def watched(in_a_round: Callable[[], Found]) -> tuple[list[Found], int]:
    """The results of six rounds, and the growth of memory: from the least after the first three to the least after the
    others.

    The least counts, because threads leave now more, now fewer of malloc's arenas behind.
    """
    found, after = [], []
    for _ in range(ROUNDS):
        found.append(in_a_round())
        after.append(resident())
    return found, min(after[ROUNDS // 2 :]) - min(after[: ROUNDS // 2])


# ---- Problems whose answers are known --------------------------------------------------------------------------------


def problems(rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, Options]]:
    found = []
    for shape in ((32, 10), (1000, 10), (4000, 100), (50, 5000), (300, 64), (2, 21, 60, 50)):
        axis = 1 if len(shape) == 4 else -1
        n_classes, samples = shape[axis], shape[:1] + shape[2:] if axis == 1 else shape[:-1]
        labels = rng.integers(0, n_classes, samples)
        for dtype in (np.float32, np.float64, np.float16):
            logits = (rng.standard_normal(shape) * 3).astype(dtype)
            weights = rng.random(n_classes)
            found += [
                (logits, labels, {"axis": axis}),
                (logits, labels, {"axis": axis, "label_smoothing": 0.1, "class_weight": weights, "z_loss": 1e-4}),
                (logits, labels, {"axis": axis, "temperature": 2.0, "ignore_index": 3, "reduction": "sum"}),
            ]
    return found


def storm(seconds: float, n_threads: int, rng: np.random.Generator) -> tuple[int, list[str]]:
    """Call from all threads at once. Return the number of calls and the faults."""
    known = [(problem, softxent.cross_entropy_and_grad(*problem[:2], **problem[2])) for problem in problems(rng)]
    calls, faults, end = [0] * n_threads, [], time.monotonic() + seconds

    def work(me: int) -> None:
        order = np.random.default_rng(me)
        while time.monotonic() < end and not faults:
            (logits, labels, options), (loss, grad) = known[order.integers(len(known))]
            got = softxent.cross_entropy_and_grad(logits, labels, n_threads=int(order.integers(1, 5)), **options)
            calls[me] += 1
            if got[0] != loss or not np.array_equal(got[1], grad):
                faults.append(f"{logits.shape} {logits.dtype} {options}: not the same bits")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(calls), faults


# ---- Arguments that change ------------------------------------------------------------------------------------------


def change(
    labels: np.ndarray, target: np.ndarray, weights: np.ndarray, mask: np.ndarray, ends: threading.Event
) -> None:
    """Change all arrays, sometimes to values that are refused."""
    rng, n_classes = np.random.default_rng(labels.size), target.shape[1]
    while not ends.is_set():
        i = rng.integers(labels.size, size=16)
        labels[i] = n_classes
        labels[i] = i % n_classes
        target[i, 0] = np.nan
        target[i, 0] = 0.5
        weights[i] = rng.random(16)
        mask[i, 1] ^= True


def while_changing(rng: np.random.Generator, outcomes: collections.Counter[str]) -> list[str]:
    """Call with one set of arrays that changes. Each loss that is written must be the sample's, with one label or
    another.
    """
    n_classes, n = int(rng.choice([2, 3, 10, 33, 64, 65])), int(rng.integers(1, 3000))
    logits = rng.standard_normal((n, n_classes)).astype(rng.choice(["f4", "f8"]))
    labels = rng.integers(0, n_classes, n).astype(rng.choice(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]))
    target, weights, mask = np.full_like(logits, 0.5), np.ones(n, logits.dtype), np.ones(logits.shape, bool)
    known = [softxent.cross_entropy(logits, np.full(n, k), reduction="none") for k in range(n_classes)]
    losses, ends = np.empty(n, logits.dtype), threading.Event()
    calls: list[Callable[[], object]] = [
        lambda: softxent.cross_entropy(logits, labels, reduction="none", out=losses),
        lambda: softxent.cross_entropy_and_grad(logits, labels, sample_weight=weights, where=mask),
        lambda: softxent.cross_entropy_and_rank(logits, target),
        lambda: softxent.cross_entropy(logits, softxent.SparseTarget(labels[:, None], target[:, :1])),
        lambda: softxent.cross_entropy_and_grad(logits, labels, temperature=weights + 1, wrt_temperature=True),
        lambda: softxent.kl_divergence_and_grad(logits, target, sample_weight=weights, where=mask),
    ]
    thread = threading.Thread(target=change, args=(labels, target, weights, mask, ends))
    thread.start()
    faults = []
    for _ in range(20):
        losses[:] = -1
        for call in calls:
            try:
                call()
                outcomes["answers"] += 1
            except REFUSALS as error:
                outcomes[type(error).__name__] += 1
        if not np.any([losses == -1, *(losses == loss for loss in known)], axis=0).all():
            faults.append(f"{logits.shape} {logits.dtype}, labels {labels.dtype}: a loss that no label gives")
    ends.set()
    thread.join()
    return faults


def changing(seconds: float, rng: np.random.Generator) -> tuple[collections.Counter[str], list[str]]:
    """Call while another thread changes the inputs. Return the outcomes and the faults."""
    outcomes: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not faults:
        faults = while_changing(rng, outcomes)
    return outcomes, faults


# ---- Arguments of every kind -----------------------------------------------------------------------------------------

SCALARS = [None, 0, 1, -1, 3, 0.1, 0.5, 1.0, 2.0, -2.0, 1e300, np.nan, np.inf, b"", (), {}, 1j]
SCALARS += ["mean", "none", "sum", "x"]
DTYPES = ["f4", "f8", "f2", ">f4", "i1", "i8", "u8", "?", "c8", "O", "U1", "g", "M8[s]"]
FUNCTIONS = [name for name in softxent.__all__ if name.startswith("cross_entropy")]
DIVERGENCES = ["kl_divergence", "kl_divergence_and_grad"]
PRODUCTS = ["softmax_jvp", "softmax_vjp", "log_softmax_jvp", "log_softmax_vjp"]
FAMILY = ["softmax", "log_softmax", "logsumexp", "entropy", "entropy_and_grad", "softmax_jacobian", *PRODUCTS]
NO_OPTIONS = ("logits", "labels", "target", "v", "g", "out", "unknown")
SENSIBLE: dict[str, list[object]] = {
    "axis": [-1, 0, None, (0, -1)],
    "keepdims": [True],
    "target_logits": [True],
    "wrt_temperature": [True],
    "ignore_index": [-1, 1],
    "label_smoothing": [0.1, 1],
    "temperature": [0.5, 2.0],
    "softcap": [1.0, 30],
    "z_loss": [1e-4],
    "base": [2],
    "reduction": ["none", "sum", "mean"],
    "normalizer": [3.0],
    "n_threads": [1, 2, 4],
}


def any_array(rng: np.random.Generator, shape: tuple[int, ...], sign: int = 1) -> object:
    if rng.random() < 0.02:
        return SCALARS[rng.integers(len(SCALARS))]
    if rng.random() < 0.03:
        shape = tuple(rng.integers(0, 5, rng.integers(0, 4)))
    dtype = DTYPES[rng.integers(3 if rng.random() < 0.9 else len(DTYPES))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bits = rng.integers(0, 256, (*shape, 16), np.uint8) if rng.random() < 0.2 else None
        numbers = rng.standard_normal(shape) * 5
        array = np.asarray(numbers if sign else abs(numbers)).astype(dtype)
    if bits is not None and array.dtype.kind == "f" and array.itemsize <= 8:
        array = np.asarray(np.ascontiguousarray(bits[..., : array.itemsize]).view(array.dtype)[..., 0])
    if array.ndim and rng.random() < 0.3:
        array = array[::-1]
    return np.asfortranarray(array) if rng.random() < 0.2 else array


def any_sparse_target(rng: np.random.Generator, shape: tuple[int, ...]) -> softxent.SparseTarget:
    places = (*shape[:-1], int(rng.integers(0, 6)))
    classes = rng.integers(-1, shape[-1] + (rng.random() < 0.1), places)
    masses = rng.random(places) if rng.random() < 0.7 else any_array(rng, places, sign=0)
    return softxent.SparseTarget(classes.astype(["i8", "i4", ">i2"][rng.integers(3)]), np.asarray(masses))


def any_call(rng: np.random.Generator) -> tuple[str, list[object], Options, np.ndarray | None]:
    names = [*FUNCTIONS, *FUNCTIONS, *DIVERGENCES, *DIVERGENCES, *FAMILY]
    name = names[rng.integers(len(names))]
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 7, 17, 40, 70, 130], rng.integers(1, 4)))
    shape = shape[-2:] if name == "softmax_jacobian" else shape
    arguments = [any_array(rng, shape)]
    if name in FUNCTIONS:
        labels = rng.integers(-1 if rng.random() < 0.2 else 0, shape[-1] + (rng.random() < 0.1), shape[:-1])
        types = ["i8", "i4", "u1", ">i2"]
        arguments.append(labels.astype(types[rng.integers(4)]) if rng.random() < 0.7 else any_array(rng, shape))
        if rng.random() < 0.2:
            arguments[1] = any_sparse_target(rng, shape)
    if name in ("cross_entropy_hvp", *DIVERGENCES, *PRODUCTS):
        arguments.append(any_array(rng, shape))
    options: Options = {}
    takes = inspect.signature(getattr(softxent, name)).parameters
    for option in rng.choice([option for option in takes if option not in NO_OPTIONS], rng.integers(0, 4)):
        likely = {"class_weight": shape[-1:], "sample_weight": shape[:-1], "where": shape, "grad_output": shape[:-1]}
        likely["temperature"] = shape[:-1]
        choices = SENSIBLE.get(str(option), SCALARS) if rng.random() < 0.8 else SCALARS
        options[str(option)] = choices[rng.integers(len(choices))]
        if option in likely and rng.random() < 0.8:
            options[str(option)] = any_array(rng, likely[str(option)], sign=0)
    guarded = None
    if (
        "out" in takes
        and rng.random() < 0.3
        and isinstance(arguments[0], np.ndarray)
        and arguments[0].dtype.kind == "f"
    ):
        logits = arguments[0]
        guarded = np.full(logits.size + 128, 7, logits.dtype)
        options["out"] = guarded[64:-64].reshape(logits.shape)
    return name, arguments, options, guarded


def wild(seconds: float, rng: np.random.Generator) -> tuple[collections.Counter[str], list[str]]:
    """Call with any arguments. Return the outcomes and the faults."""
    outcomes: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(faults) < 10:
        name, arguments, options, guarded = any_call(rng)
        before = len(faults)
        try:
            getattr(softxent, name)(*arguments, **options)
            outcomes["answers"] += 1
        except REFUSALS as error:
            outcomes[type(error).__name__] += 1
            if guarded is not None and not (guarded == 7).all():
                faults.append(f"{error!r}, and out is not as it was")
        except Exception as error:
            faults.append(repr(error))
        if guarded is not None and not ((guarded[:64] == 7).all() and (guarded[-64:] == 7).all()):
            faults.append("something was written beside out")
        faults[before:] = [f"{name}{(*arguments, options)}: {fault}" for fault in faults[before:]]
    return outcomes, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each of the three parts (60)")
    parser.add_argument("--threads", type=int, default=64, help="that call at once (64)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    rng = np.random.default_rng(arguments.seed)

    seconds = arguments.seconds / ROUNDS
    storm(min(5, seconds), arguments.threads, rng)  # by now everything that is allocated once is there
    storms, grown = watched(lambda: storm(seconds, arguments.threads, rng))
    calls, faults = sum(calls for calls, _ in storms), [fault for _, found in storms for fault in found]
    print(f"{arguments.threads} threads, {calls} calls, memory grew by {grown} bytes", flush=True)
    outcomes, found = changing(arguments.seconds, rng)
    print(f"{outcomes.total()} calls with arguments that change:", dict(outcomes.most_common()), flush=True)
    faults += found
    wild(min(5, seconds), rng)
    trials, more = watched(lambda: wild(seconds, rng))
    outcomes = sum((outcomes for outcomes, _ in trials), collections.Counter())
    print(f"{outcomes.total()} calls of every kind, memory grew by {more} bytes:", dict(outcomes.most_common()))
    faults += [fault for _, found in trials for fault in found]
    if max(grown, more) > GROWTH:
        faults.append(f"memory grew by {max(grown, more)} bytes")
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
