"""Promises that hold for any problem: whatever shapes, strides, dtypes, values and options Hypothesis draws.

Here live the comparison of every public function with softxent.reference under any options, what the formulas imply
without it (sums, shifts, permutations, splits, differences), and the refusal of any option value out of its range. One
strategy draws all problems. Not here: the accuracy of the plain call (test_accuracy.py), the edges and the refusals
one by one (test_edges.py, test_refusals.py).
"""

import contextlib
import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, note, settings

import softxent
from softxent import _kernels, reference
from softxent._options import Options

try:
    from ml_dtypes import bfloat16

    BFLOAT16 = [np.dtype(bfloat16)]
except ImportError:
    BFLOAT16 = []

ISAS = _kernels.usable_isas()
INF, NAN = math.inf, math.nan
F2, F4, F8 = (np.dtype(code) for code in ("f2", "f4", "f8"))
WIDER = {F4: F8, F8: np.dtype(np.longdouble)}

LOGITS = [F4, F8, F2, *BFLOAT16, np.dtype(">f4"), F4, F8, np.dtype("i1"), np.dtype("?")]
WEIGHTS = [F8, F4, F2, *BFLOAT16, np.dtype(">f8"), np.dtype("i1")]
DISTRIBUTIONS = [F4, F8, F2, *BFLOAT16, np.dtype("?"), np.dtype("u1")]
INTEGERS = [np.dtype(code) for code in ("i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", ">i8", ">u2")]


def examples(n):
    """The number of examples to draw. The repository keeps none. In CI, Hypothesis draws the same ones each time."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(deadline=None, max_examples=n, database=None, print_blob=True, suppress_health_check=slow)


@contextlib.contextmanager
def kernels_of(isa):
    """Tests loop over ISAS, without the fixture, so that what is expected is computed once for all."""
    before = _kernels.isa_in_use()
    _kernels.use_isa(isa)
    note(f"isa: {isa}")
    try:
        yield
    finally:
        _kernels.use_isa(before)


# --- Memory -----------------------------------------------------------------------------------------------------------


def laid_out(values, layout, rng, repeats=True):
    """A read-only array of the values, in C or Fortran order ("C", "F") or with any strides ("any").

    "any" means axes in any order in memory, negative steps, gaps, and a start off its alignment. If `repeats`, some
    axes have stride 0, and then other values.
    """
    values = np.asarray(values)
    if layout != "any":
        array = np.array(values, order=layout)
    else:
        order = rng.permutation(values.ndim)
        steps = rng.choice([1, 1, -1, 2, -2, 3], values.ndim)
        gaps = rng.integers(0, 2, values.ndim)
        extents = [int(abs(step) * n + gap) for step, n, gap in zip(steps, values.shape, gaps, strict=True)]
        offset = int(rng.choice([0, 0, 1, 4]))
        memory = np.full(math.prod(extents) * values.itemsize + offset, 0x5A, np.uint8)
        array = np.ndarray([extents[i] for i in order], values.dtype, memory, offset).transpose(np.argsort(order))
        array = array[(*(slice(gap, None) for gap in gaps), ...)][(*(slice(None, None, step) for step in steps), ...)]
        array[...] = values
        if repeats and values.ndim and rng.random() < 0.2:
            axis = rng.integers(values.ndim)
            array = np.broadcast_to(array[(slice(None),) * axis + (slice(1),)], values.shape)
    array.flags.writeable = False
    return array


def memory_of(array):
    """All bytes from the array's first entry in memory to its last."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return np.ndarray(array.nbytes, np.uint8, array)


def twin(array):
    """A writeable copy with the same strides, in a copy of all the memory."""
    if array.size == 0:
        return array.copy()
    memory = memory_of(array)
    offset = array.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    return np.ndarray(array.shape, array.dtype, memory.copy(), offset, array.strides)


def surroundings(array):
    """The bytes of the array's memory that are not its own. They are taken for zeros."""
    copy = twin(array)
    copy[...] = np.zeros((), array.dtype)
    return memory_of(copy).tobytes()


# --- Problems ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """The arguments of the public functions, and a generator for further arrays."""

    logits: np.ndarray
    labels: np.ndarray
    axis: int
    options: dict[str, Any]
    rng: np.random.Generator

    @functools.cached_property
    def working(self):
        """The dtype that the kernels compute in."""
        return F4 if self.logits.dtype.name in ("float32", "float16", "bfloat16") else F8

    @property
    def result(self):
        """The dtype of the gradients."""
        return self.logits.dtype.newbyteorder("=") if self.working == F4 else F8

    @property
    def sample_shape(self):
        return tuple(np.delete(self.logits.shape, self.axis))

    @property
    def first_sample_axis(self):
        return int(self.axis % self.logits.ndim == 0)

    @property
    def n_classes(self):
        return self.logits.shape[self.axis]

    @property
    def has_indices(self):
        return self.labels.ndim < self.logits.ndim

    @property
    def reduction(self):
        return self.options.get("reduction", "mean")

    @property
    def family_options(self):
        """The options that the softmax family has too."""
        return {name: self.options[name] for name in ("where", "temperature") if name in self.options}

    @property
    def may_be_overwritten(self):
        """Whether results of the logits' shape can go into (a writeable twin of) the logits."""
        return self.logits.dtype.newbyteorder("=") == self.result and 0 not in self.logits.strides

    @functools.cached_property
    def used(self):
        """False where no gradient goes: in samples that are ignored or have no weight, and where classes are removed.
        In the logits' shape."""
        used = np.array(np.broadcast_to(self.options.get("where", True), self.logits.shape))
        if "ignore_index" in self.options:
            used &= np.expand_dims(native(self.labels) != self.options["ignore_index"], self.axis)
        if "sample_weight" in self.options:
            used &= np.expand_dims(np.asarray(self.options["sample_weight"]) != 0, self.axis)
        return used

    def with_options(self, **options):
        return replace(self, options={**self.options, **options})

    def without(self, *names):
        return replace(self, options={name: value for name, value in self.options.items() if name not in names})

    def classes_last(self, array):
        return np.moveaxis(array, self.axis, -1)

    def as_given(self, array):
        return np.moveaxis(array, -1, self.axis)

    def seen(self, array):
        """The values that the kernels see, in a type wide enough to judge by."""
        return np.asarray(array).astype(self.working).astype(WIDER[self.working])

    def call(self, name, *arrays, **more):
        function = getattr(softxent, name)
        return function(self.logits, self.labels, *arrays, axis=self.axis, **self.options, **more)

    def expect(self, name, *arrays, **more):
        """The reference's result for the values that the kernels see."""
        options = {**self.options, **more}
        for weights in ("class_weight", "sample_weight", "grad_output"):
            if isinstance(options.get(weights), np.ndarray):
                options[weights] = self.seen(options[weights])
        labels = self.labels if self.has_indices else self.seen(self.labels)
        arrays = [self.seen(array) for array in arrays]
        return getattr(reference, name)(self.seen(self.logits), labels, *arrays, axis=self.axis, **options)

    def direction(self, may_break=True):
        """An array like the logits. Where no derivative goes, it may hold anything."""
        v = self.rng.normal(size=self.logits.shape)
        breaks = may_break and self.rng.random() < 0.5
        v = np.where(self.used, v, self.rng.choice([NAN, INF, 0])) if breaks else v
        dtypes = [dtype for dtype in WEIGHTS if not (breaks and dtype.kind == "i")]
        return laid_out(v.astype(self.rng.choice(dtypes)), "any", self.rng, repeats=not breaks)

    def out(self, start=NAN, shape=None):
        """An array of any strides, for results of the logits' shape or of that shape. Nothing of `start` may remain in
        it.
        """
        values = np.full(self.logits.shape if shape is None else shape, start, self.result)
        return twin(laid_out(values, "any", self.rng, repeats=False))

    def __repr__(self):
        def described(value):
            if not isinstance(value, np.ndarray):
                return repr(value)
            return f"{value.dtype} {value.shape} strides {value.strides} {np.array2string(value, threshold=40)}"

        shown = {"logits": self.logits, "labels": self.labels, "axis": self.axis, **self.options}
        return "Problem(" + ",\n  ".join(f"{name}: {described(value)}" for name, value in shown.items()) + ")"


# Each option is drawn or left out. For arrays, only the dtype or the kind is drawn here.
OPTIONS = {
    "class_weight": st.sampled_from(WEIGHTS),
    "sample_weight": st.sampled_from(WEIGHTS),
    "where": st.sampled_from(["full", "broadcast"]),
    "ignore_index": st.sampled_from([-100, -1, 0, 255]),
    "label_smoothing": st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0.01, 0.99),
    "temperature": st.floats(0.1, 10),
    "softcap": st.floats(0.5, 50),
    "z_loss": st.floats(1e-4, 1),
    "base": st.sampled_from([2.0, 10.0, 0.5, math.e]),
    "reduction": st.sampled_from(["none", "sum", "mean"]),
    "normalizer": st.floats(0.5, 100),
}
assert {*Options._fields} <= {*OPTIONS}  # a new one has its value here


def all_but(*names):
    """The options in the order of OPTIONS. In a set's own order, one seed would draw different things each time."""
    return [name for name in OPTIONS if name not in names]


FAMILY = ["softmax", "log_softmax", "logsumexp"]
KINDS = ["exact", "xgboost", "lightgbm"]
TEXTURES = ["spread", "narrow", "ties", "offset", "confident"]
DEFECTS = ["classes at -inf", "broken samples", "target anywhere"]


def native(labels):
    """The array in native byte order and C order. NumPy before 2.2 crashes if it compares other arrays with numbers out
    of range.
    """
    return labels.astype(labels.dtype.newbyteorder("="), order="C")


@st.composite
def problems(
    draw, dtypes=LOGITS, layouts=("C", "F", "any"), textures=TEXTURES, defects=DEFECTS, options=OPTIONS, n_logits=None
):
    """Problems of any kind: of `n_logits` logits or a little more, or of at most 40 samples."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    n_classes = draw(st.sampled_from([*range(1, 9), 33, 63, 64, 65, 66, 100, 100, 600, 1100]), label="n_classes")
    shape = draw(_sample_shapes(n_classes)) if n_logits is None else (3, n_logits // 3 // n_classes + 1)
    axis = draw(st.integers(-len(shape) - 1, len(shape)), label="axis")
    dtype = draw(st.sampled_from(dtypes), label="dtype")
    layout = draw(st.sampled_from(layouts), label="layout")
    drawn = draw(st.fixed_dictionaries({}, optional={name: OPTIONS[name] for name in options}), label="options")
    flaws = draw(st.sets(st.sampled_from(defects)) if defects else st.just(set()), label="flaws")

    z = _logits(draw(st.sampled_from(textures), label="texture"), (*shape, n_classes), rng)
    if "classes at -inf" in flaws:
        z[rng.random(z.shape) < 0.2] = -INF
    if draw(st.sampled_from(["indices", "indices", "distribution"]), label="labels") == "indices":
        labels = _class_indices(shape, n_classes, draw(st.sampled_from(INTEGERS)), drawn.get("ignore_index"), rng)
        mass, ignored = native(labels)[..., None] == np.arange(n_classes), native(labels) == drawn.get("ignore_index")
    else:
        labels = _distribution(z.shape, draw(st.sampled_from(DISTRIBUTIONS)), rng)
        mass, ignored = labels != 0, False
        drawn.pop("ignore_index", None)
    if "target anywhere" not in flaws:
        z[mass & np.isneginf(z)] = 0
    if "broken samples" in flaws:
        broken = rng.random(shape) < np.where(ignored, 0.8, 0.2)
        z[broken, rng.integers(n_classes)] = rng.choice([NAN, INF])
        z[rng.random(shape) < 0.05] = -INF
    if dtype.kind in "ib":
        z = np.rint(_finite(z)).clip(-127, 127) if dtype.kind == "i" else z > 0

    for name, weights_shape in (("class_weight", n_classes), ("sample_weight", shape)):
        if name in drawn:
            weights = rng.uniform(0.1, 2, weights_shape) * (rng.random(weights_shape) < rng.choice([1, 0.7, 0.7, 0]))
            weights = np.rint(weights) if drawn[name].kind == "i" else np.asarray(weights)
            drawn[name] = laid_out(weights.astype(drawn[name]), layout, rng)
    if "where" in drawn:
        drawn["where"] = laid_out(_where(drawn["where"], mass, axis, "target anywhere" in flaws, rng), layout, rng)

    logits = laid_out(np.moveaxis(z, -1, axis).astype(dtype), layout, rng)
    if labels.ndim < z.ndim:
        labels = laid_out(labels, layout, rng)
    else:  # repeated entries are not one-hot, and a target of integers must be
        labels = laid_out(np.moveaxis(labels, -1, axis), layout, rng, repeats=labels.dtype.kind not in "biu")
    return Problem(logits, labels, axis, drawn, rng)


@st.composite
def _sample_shapes(draw, n_classes):
    n_axes = draw(st.sampled_from([1, 2, 3, 0, 1, 2, 3]))
    most = 40 if n_classes <= 100 else 3
    shape = [draw(st.integers(1, int(most ** (1 / n_axes) + 1e-9))) for _ in range(n_axes)]
    if shape and draw(st.integers(0, 15)) == 15:
        shape[draw(st.integers(0, n_axes - 1))] = 0
    return tuple(shape)


def _logits(texture, shape, rng):
    z = 3 * rng.normal(size=shape)
    if texture == "narrow":
        return z / 1000
    if texture == "ties":
        return np.rint(z)
    if texture == "grid":
        return np.rint(64 * z) / 64
    if texture == "offset":
        return z + rng.choice([-1e4, 1e4, 100], (*shape[:-1], 1))
    if texture == "confident":
        return z / 3 + rng.uniform(5, 40) * (np.arange(shape[-1]) == rng.integers(0, shape[-1], (*shape[:-1], 1)))
    return z


def _class_indices(shape, n_classes, dtype, ignored, rng):
    """Class indices. Some of them are `ignored`, if the dtype can hold that."""
    range_ = np.iinfo(dtype)
    labels = rng.integers(0, min(n_classes, range_.max + 1), shape)
    if ignored is not None and range_.min <= ignored <= range_.max:
        labels = np.where(rng.random(shape) < 0.3, ignored, labels)
    return np.asarray(labels).astype(dtype)


def _distribution(shape, dtype, rng):
    """Non-negative numbers that add up to one, or to any number; or a one-hot row."""
    kind = "one-hot" if dtype.kind in "biu" else rng.choice(["one-hot", "probabilities", "anything"])
    if kind == "one-hot":
        return (np.arange(shape[-1]) == rng.integers(0, shape[-1], (*shape[:-1], 1))).astype(dtype)
    t = rng.random(shape) ** 3 * (rng.random(shape) < 0.7)
    if kind == "probabilities":
        t /= np.maximum(t.sum(axis=-1, keepdims=True), 1e-3)
    return t.astype(dtype)


def _where(kind, mass, axis, anywhere, rng):
    """Which classes are allowed, in an array like the logits ("full") or one that broadcasts to them."""
    where = rng.random([n if kind == "full" or rng.random() < 0.5 else 1 for n in mass.shape]) < 0.75
    if kind == "full" and not anywhere:
        where |= mass
    where = np.moveaxis(where, -1, axis)
    while kind == "broadcast" and where.ndim and where.shape[0] == 1 and rng.random() < 0.5:
        where = where[0]
    return where


# --- How far results may lie from the reference's ---------------------------------------------------------------------

# The promise for the plain call, in eps of the dtype of the arithmetic. The kernels need a third of it. The rest is for
# the rounding of the reference, where long double is no wider than float64.
FEW = 4
# Results below the smallest normal number may be 0, and so may their factors. Weights, the logsumexp, 1/T^2 and the
# number of classes multiply a factor by less than this.
FLUSHED = 2.0**30
# Half precision: the relative rounding, half the distance of denormals, and the largest number.
HALF = {"float16": (2.0**-11, 2.0**-25, 65504.0), "bfloat16": (2.0**-8, 0.0, 3.3895313892515355e38)}


def _finite(x):
    return np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)


class Bounds:
    """How far the results of a problem may lie from the exact ones, from the sizes of the terms that are added up.

    Let u be the logits after softcap and temperature T, m = max u, d_k = m - u_k, and a = max |capped logit| / T with a
    softcap, 0 without. Then, in units of FEW eps:

    - exp(u_k - m) is off by 1 + d_k + a, relatively: a difference is rounded, and with a softcap its terms are too.
    - S, the sum of these, is off by 1 + E + a with E = sum p_k d_k, relatively; so p_k by 2 + d_k + E + a.
    - 1 - p_k, the sum of the others' probabilities, is off by (2 + a) (1 - p_k) + E, absolutely.
    - x_k = lse - u_k = d_k + log S is off by x_k + E + a (1 - p_k), absolutely: at a top class d_k is exactly 0.
    - lse = m + log S is off by |m| + log S + E + a, absolutely.

    Products add the relative errors of their factors, sums the absolute errors of their terms. With q the target times
    the class weights and W its sum, a gradient's terms are p_k (W - q_k) and q_k (1 - p_k). Neither is a difference:
    the digits of a confident sample must be there.
    """

    def __init__(self, problem, grad_output=None):
        o = problem.options
        self.problem, self.few = problem, FEW * float(np.finfo(problem.working).eps)
        self.floor = FLUSHED * float(np.finfo(problem.working).tiny)
        self.temperature, cap = o.get("temperature", 1.0), o.get("softcap", INF)
        self.z_loss = o.get("z_loss", 0.0)
        self.log_base = abs(math.log(o["base"])) if "base" in o else 1.0
        allowed = problem.classes_last(np.broadcast_to(o.get("where", True), problem.logits.shape))
        z = problem.classes_last(problem.seen(problem.logits)).astype(np.float64)
        with np.errstate(all="ignore"):
            capped = z if cap == INF else np.where(np.isinf(z), z, cap * np.tanh(z / cap))
            u = np.where(allowed, capped, -INF) / self.temperature
            log_p = reference.log_softmax(u)
            self.p, self.not_p, self.x = _finite(np.exp(log_p)), _finite(-np.expm1(log_p)), _finite(-log_p)
            top = np.max(u, axis=-1, keepdims=True)
            self.d = np.maximum(_finite(top - u), 0)
            self.e = (self.p * self.d).sum(axis=-1, keepdims=True)
            self.a = np.max(np.abs(_finite(u)), axis=-1, keepdims=True) if cap < INF else 0.0
            lse = _finite(reference.logsumexp(u))[..., None]
            self.lse = np.abs(lse)
            self.lse_error = np.abs(_finite(top)) + np.abs(lse - _finite(top)) + self.e + self.a
            self.in_caps = np.abs(_finite(z)) / cap
            self.slope = 1 / (self.temperature * np.cosh(self.in_caps) ** 2)
        self.q, self.s, self.divisor = _target(problem, allowed)
        self.others = np.maximum(self.q.sum(axis=-1, keepdims=True) - self.q, 0)
        upstream = 1 if grad_output is None else np.abs(problem.seen(grad_output).astype(np.float64))
        self.scale = _finite(self.s * upstream)[..., None] / (self.divisor or INF)
        self.p_error = self.few * (2 + self.d + self.e + self.a)
        self.not_p_error = self.few * ((2 + self.a) * self.not_p + self.e)

    def _losses(self):
        """Sizes and errors, of each sample."""
        lse_error = self.few * self.lse_error
        size = (self.q * self.x).sum(axis=-1) / self.log_base + self.z_loss * self.lse[..., 0] ** 2
        x_error = self.few * (3 * self.x + self.e + self.a * self.not_p)
        error = (self.q * x_error).sum(axis=-1) / self.log_base
        square_error = (2 * self.lse + lse_error) * lse_error + self.few * self.lse**2
        return self.s * size, self.s * (error + self.z_loss * square_error[..., 0]) + self.floor

    def loss(self):
        size, error = self._losses()
        if self.problem.reduction == "none":
            return error
        total = (error + self.few * size).sum()
        return total / (self.divisor or INF) + self.sum_error()

    def sum_error(self):
        """The error of the losses' sum, in float64 and in any order."""
        size, _ = self._losses()
        return size.size * 2.0**-52 * size.sum() / (self.divisor or INF)

    def grad(self):
        size = (self.p * self.others + self.q * self.not_p) / self.log_base + 2 * self.z_loss * self.lse * self.p
        error = (self.others * self.p * self.p_error + self.q * self.not_p_error) / self.log_base
        error = error + 2 * self.z_loss * self.p * (self.lse * self.p_error + self.few * self.lse_error)
        error = error + size * self.few * (1 + self.in_caps)
        return self.problem.as_given(self.scale * self.slope * error + self.floor)

    def curvature(self):
        return self.scale * self.q.sum(axis=-1, keepdims=True) / (self.temperature**2 * self.log_base)

    def hess(self, kind="exact"):
        n = self.problem.n_classes
        factor = {"exact": 1, "xgboost": 2, "lightgbm": n / max(n - 1, 1)}[kind]
        error = self.p * (self.not_p * (self.p_error + self.few) + self.not_p_error)
        least = self.few * 1e-16 if kind == "xgboost" else 0.0
        return self.problem.as_given(factor * self.curvature() * error + least + self.floor)

    def jacobian(self):
        p, r = self.p, self.p_error
        error = p[..., :, None] * p[..., None, :] * (r[..., :, None] + r[..., None, :])
        i = np.arange(self.problem.n_classes)
        error[..., i, i] = p * (self.not_p * self.p_error + self.not_p_error)
        return error + self.floor

    def product(self, v, curvature=1.0):
        """Size and error of the Jacobian times v: p_k (v_k - sum p v), where v is counted from its value at the
        likeliest class.
        """
        v = _finite(self.problem.classes_last(np.where(self.problem.used, self.problem.seen(v), 0)).astype(np.float64))
        v = np.abs(v - np.take_along_axis(v, self.p.argmax(axis=-1, keepdims=True), axis=-1))
        moment = (self.p * v).sum(axis=-1, keepdims=True)
        moment_error = (self.p * v * (self.p_error + self.few)).sum(axis=-1, keepdims=True)
        error = self.p * ((v + moment) * (self.p_error + self.few) + moment_error)
        return self.problem.as_given(curvature * error + self.floor)

    def hvp(self, v):
        return self.product(v, self.curvature())

    def log_softmax(self):
        return self.problem.as_given(self.few * (2 * self.x + self.e) + self.floor)

    def logsumexp(self):
        return self.few * self.lse_error[..., 0] + self.floor

    def softmax(self):
        return self.problem.as_given(self.p * self.p_error + self.floor)


def _target(problem, allowed):
    """The class-weighted target with the class axis last, the weight of each sample's loss, and the number that a mean
    divides by.
    """
    o = problem.options
    w = problem.seen(o["class_weight"]) if "class_weight" in o else np.ones(problem.n_classes)
    s = problem.seen(o["sample_weight"]) if "sample_weight" in o else np.ones(problem.sample_shape)
    if problem.has_indices:
        t = native(problem.labels)[..., None] == np.arange(problem.n_classes)
        s = np.where(native(problem.labels) == o["ignore_index"], 0, s) if "ignore_index" in o else s
        total = (s * (w * t).sum(axis=-1)).sum()
    else:
        t = problem.classes_last(problem.seen(problem.labels))
        total = s.sum()
    e, n_allowed = o.get("label_smoothing", 0.0), np.maximum(allowed.sum(axis=-1, keepdims=True), 1)
    q = w * ((1 - e) * t + e / n_allowed * allowed)
    divisor = o.get("normalizer", total) if problem.reduction == "mean" else 1.0
    return q.astype(np.float64), s.astype(np.float64), float(divisor)


def assert_close(got, want, bound):
    """Compare within the bound and a rounding to the result's dtype. nan and infinite must be in the same places."""
    got, want = np.asarray(got), np.asarray(want, np.longdouble)
    assert got.shape == want.shape
    relative, absolute, largest = HALF.get(got.dtype.name, (0.0, 0.0, INF))
    got, finite = got.astype(np.longdouble), np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    # A number that is too large for the dtype becomes infinite.
    error = np.abs(got[finite].clip(-largest, largest) - want[finite].clip(-largest, largest))
    size, bound = np.abs(want[finite]), np.broadcast_to(bound, want.shape)[finite]
    allowed = (1 + relative) * bound + relative * size + absolute
    bad = ~(error <= allowed)
    if np.any(bad):
        worst = np.argmax(np.where(bad, error / allowed, 0))
        raise AssertionError(
            f"{bad.sum()} of {want.size} entries are wrong, such as {got[finite][worst]} for {want[finite][worst]}, "
            f"off by {error[worst]:.3g} where {allowed[worst]:.3g} is allowed"
        )


def assert_same(got, want):
    """Compare for equal numbers, where nan equals nan. NumPy's own comparison has no nan for bfloat16."""
    np.testing.assert_array_equal(np.asarray(got, np.float64), np.asarray(want, np.float64))


def assert_losses(problem, got, want, bound):
    if problem.reduction == "none":
        assert got.dtype == problem.result
    else:
        assert type(got) is float
    assert_close(got, want, bound)


# --- Every function, against the reference ----------------------------------------------------------------------------


@examples(500)
@given(problems())
def test_losses_are_those_of_the_reference(problem):
    want, bound = problem.expect("cross_entropy"), Bounds(problem).loss()
    for isa in ISAS:
        with kernels_of(isa):
            losses = problem.call("cross_entropy")
            assert_losses(problem, losses, want, bound)
            if problem.reduction == "none":
                out = problem.out(shape=problem.sample_shape)
                beside = surroundings(out)
                assert problem.call("cross_entropy", out=out) is out
                assert_same(out, losses)
                assert surroundings(out) == beside


@examples(700)
@given(problems(), st.sampled_from([None, "number", "samples"]), st.booleans(), st.booleans())
def test_gradients_are_those_of_the_reference(problem, upstream, accumulate, in_place):
    more = {}
    if upstream is not None:
        per_sample = upstream == "samples" and problem.reduction == "none"
        value = problem.rng.normal(size=problem.sample_shape if per_sample else ())
        more["grad_output"] = laid_out(value, "any", problem.rng) if per_sample else float(value)
    loss, grad = problem.expect("cross_entropy_and_grad", **more)
    bounds = Bounds(problem, **more)
    grad_bound = bounds.grad()
    logits = problem.logits
    in_place &= problem.may_be_overwritten
    for isa in ISAS:
        with kernels_of(isa):
            out = twin(logits) if in_place else problem.out(start=1.5 if accumulate else NAN)
            start = problem.seen(out)
            beside = surroundings(out)
            of_isa = replace(problem, logits=out) if in_place else problem
            got_loss, got = of_isa.call("cross_entropy_and_grad", out=out, accumulate=accumulate, **more)
            assert got is out
            assert_losses(problem, got_loss, loss, bounds.loss())
            if accumulate:
                rounding = bounds.few * (np.abs(_finite(start)) + np.abs(_finite(grad)))
                assert_close(out, start + grad, grad_bound + rounding)
            else:
                assert_close(out, grad, grad_bound)
            left_alone = start[~problem.used] if accumulate else 0
            assert_same(problem.seen(out)[~problem.used], left_alone)
            assert surroundings(out) == beside


@examples(500)
@given(problems(options=all_but("softcap", "z_loss")), st.sampled_from(KINDS))
def test_hessian_diagonals_are_those_of_the_reference(problem, kind):
    loss, grad, hess = problem.expect("cross_entropy_grad_hess", kind=kind)
    bounds = Bounds(problem)
    grad_bound, hess_bound = bounds.grad(), bounds.hess(kind)
    for isa in ISAS:
        with kernels_of(isa):
            out = [problem.out() if problem.rng.random() < 0.5 else None for _ in range(2)]
            beside = [None if array is None else surroundings(array) for array in out]
            got = problem.call("cross_entropy_grad_hess", kind=kind, out=tuple(out))
            assert_losses(problem, got[0], loss, bounds.loss())
            assert_close(got[1], grad, grad_bound)
            assert_close(got[2], hess, hess_bound)
            for array, given_array, bytes_beside in zip(got[1:], out, beside, strict=True):
                assert array.dtype == problem.result
                assert np.all(array[~problem.used] == 0)
                assert given_array is None or (array is given_array and surroundings(array) == bytes_beside)


@examples(500)
@given(problems(options=all_but("softcap", "z_loss")))
def test_hessian_vector_products_are_those_of_the_reference(problem):
    v = problem.direction()
    want, bound = problem.expect("cross_entropy_hvp", v), Bounds(problem).hvp(v)
    for isa in ISAS:
        with kernels_of(isa):
            got = problem.call("cross_entropy_hvp", v)
            assert got.dtype == problem.result
            assert_close(got, want, bound)
            assert np.all(got[~problem.used] == 0)
            out = problem.out()
            beside = surroundings(out)
            assert problem.call("cross_entropy_hvp", v, out=out) is out
            assert_same(out, got)
            assert surroundings(out) == beside
            if problem.may_be_overwritten:
                in_place = twin(problem.logits)
                replace(problem, logits=in_place).call("cross_entropy_hvp", v, out=in_place)
                assert_same(in_place, got)


@examples(500)
@given(problems(options=["where", "temperature"]))
def test_the_softmax_family_is_that_of_the_reference(problem):
    bounds, z = Bounds(problem), problem.seen(problem.logits)
    for name in FAMILY:
        want = getattr(reference, name)(z, problem.axis, **problem.options)
        bound = getattr(bounds, name)()
        for isa in ISAS:
            with kernels_of(isa):
                function = functools.partial(getattr(softxent, name), **problem.options)
                got = function(problem.logits, problem.axis)
                assert got.dtype == problem.result
                assert_close(got, want, bound)
                if name != "logsumexp":
                    removed = ~np.broadcast_to(problem.options.get("where", True), problem.logits.shape)
                    assert np.all(got[removed] == (0 if name == "softmax" else -INF))
                out = problem.out(shape=want.shape)
                beside = surroundings(out)
                assert function(problem.logits, problem.axis, out=out) is out
                assert_same(out, got)
                assert surroundings(out) == beside
                if name != "logsumexp" and problem.may_be_overwritten:
                    in_place = twin(problem.logits)
                    function(in_place, problem.axis, out=in_place)
                    assert_same(in_place, got)


@examples(300)
@given(problems(options=()))
def test_the_softmaxs_jacobian_and_its_products_are_those_of_the_reference(problem):
    bounds, z, axis, v = Bounds(problem), problem.seen(problem.logits), problem.axis, problem.direction(may_break=False)
    want, bound = reference.softmax_jvp(z, problem.seen(v), axis), bounds.product(v)
    jacobian = None
    if z.size * problem.n_classes <= 50_000:  # the number of its entries
        jacobian, jacobian_bound = reference.softmax_jacobian(z, axis), bounds.jacobian()
    for isa in ISAS:
        with kernels_of(isa):
            for function in (softxent.softmax_jvp, softxent.softmax_vjp):
                got = function(problem.logits, v, axis)
                assert got.dtype == problem.result
                assert_close(got, want, bound)
            if jacobian is not None:
                got = softxent.softmax_jacobian(problem.logits, axis)
                assert got.dtype == problem.result
                assert_close(got, jacobian, jacobian_bound)


# --- What the formulas imply ------------------------------------------------------------------------------------------


@examples(150)
@given(problems(dtypes=[F4, F8], options=["reduction", "normalizer"], defects=["classes at -inf"]))
def test_gradients_of_index_labels_add_up_to_zero_in_every_sample(problem):
    assume(problem.has_indices)
    # Each entry is off by its bound. Each addition is off by eps of a partial sum, which is at most 1.
    bounds = Bounds(problem)
    bound = problem.classes_last(bounds.grad()).sum(axis=-1) + problem.n_classes * bounds.few * bounds.scale[..., 0]
    for isa in ISAS:
        with kernels_of(isa):
            _, grad = problem.call("cross_entropy_and_grad")
            finite = np.isfinite(grad).all(axis=problem.axis)
            assert np.all(np.abs(grad.sum(axis=problem.axis)) <= bound, where=finite)


@examples(200)
@given(
    problems(
        dtypes=[F4, F8],
        textures=["grid"],
        defects=["classes at -inf", "target anywhere"],
        options=all_but("softcap", "z_loss"),
    )
)
def test_a_constant_added_to_a_samples_logits_changes_nothing(problem):
    # Sixty-fourths and integers have exact sums. The kernels' results for them may be rounded otherwise.
    shift = np.expand_dims(problem.rng.integers(-1000, 1000, problem.sample_shape), problem.axis)
    logits = laid_out((problem.logits + shift).astype(problem.logits.dtype), "any", problem.rng, repeats=False)
    shifted, bounds = replace(problem, logits=logits), Bounds(problem)
    for isa in ISAS:
        with kernels_of(isa):
            loss, grad = problem.call("cross_entropy_and_grad")
            shifted_loss, shifted_grad = shifted.call("cross_entropy_and_grad")
            assert_close(shifted_loss, loss, 2 * bounds.loss())
            assert_close(shifted_grad, grad, 2 * bounds.grad())
            for name in ("softmax", "log_softmax"):
                function = functools.partial(getattr(softxent, name), axis=problem.axis, **problem.family_options)
                assert_close(function(logits), function(problem.logits), 2 * getattr(bounds, name)())


def with_classes_in_order(problem, order):
    """The same problem with its classes in another order: class `order[i]` becomes class i."""
    new_index = np.argsort(order)
    labels, options = problem.labels, dict(problem.options)
    if problem.has_indices:
        is_class = (labels >= 0) & (labels < problem.n_classes)
        labels = np.where(is_class, new_index[np.where(is_class, labels, 0).astype(int)], labels.astype(int))
        if 0 <= options.get("ignore_index", -1) < problem.n_classes:
            options["ignore_index"] = int(new_index[options["ignore_index"]])
    else:
        labels = np.take(labels, order, problem.axis)
    if "class_weight" in options:
        options["class_weight"] = options["class_weight"][order]
    if "where" in options:
        options["where"] = np.take(np.broadcast_to(options["where"], problem.logits.shape), order, problem.axis)
    return replace(problem, logits=np.take(problem.logits, order, problem.axis), labels=labels, options=options)


@examples(150)
@given(problems(dtypes=[F4, F8]))
def test_the_order_of_the_classes_does_not_matter(problem):
    order = problem.rng.permutation(problem.n_classes)
    permuted, bounds = with_classes_in_order(problem, order), Bounds(problem)
    for isa in ISAS:
        with kernels_of(isa):
            loss, grad = problem.call("cross_entropy_and_grad")
            permuted_loss, permuted_grad = permuted.call("cross_entropy_and_grad")
            assert_close(permuted_loss, loss, 2 * bounds.loss())
            assert_close(np.take(permuted_grad, np.argsort(order), problem.axis), grad, 2 * bounds.grad())


def of_samples(problem, index):
    """The problem of some of the samples: an index along their first axis. A slice keeps every stride."""

    def chosen(array, axis):
        if not isinstance(index, slice):
            return np.take(array, index, axis)
        return array[(slice(None),) * axis + (index,)]

    axis, options = problem.first_sample_axis, dict(problem.options)
    if "sample_weight" in options:
        options["sample_weight"] = chosen(options["sample_weight"], 0)
    if "where" in options:
        options["where"] = chosen(np.broadcast_to(options["where"], problem.logits.shape), axis)
    labels = chosen(problem.labels, 0 if problem.has_indices else axis)
    return replace(problem, logits=chosen(problem.logits, axis), labels=labels, options=options)


@examples(150)
@given(problems(layouts=["C"], options=all_but("reduction")))
def test_the_order_of_the_samples_does_not_change_a_bit(problem):
    assume(problem.sample_shape)
    problem = problem.with_options(reduction="none")
    order = problem.rng.permutation(problem.sample_shape[0])
    permuted = of_samples(problem, order)
    for isa in ISAS:
        with kernels_of(isa):
            losses, grad = problem.call("cross_entropy_and_grad")
            permuted_losses, permuted_grad = permuted.call("cross_entropy_and_grad")
            assert_same(permuted_losses, losses[order])
            assert_same(permuted_grad, np.take(grad, order, problem.first_sample_axis))


@examples(150)
@given(problems(layouts=["C"], options=all_but("reduction", "normalizer")), st.floats(0, 1))
def test_parts_of_a_batch_are_the_whole(problem, at):
    assume(problem.sample_shape)
    place = round(at * problem.sample_shape[0])
    parts = [of_samples(problem, index) for index in (slice(None, place), slice(place, None))]
    one_by_one, added_up = {"reduction": "none"}, {"normalizer": 7.0}
    # The losses have the same bits. Only the order of their sum, which is in float64, differs.
    rounding = Bounds(problem.with_options(**added_up)).sum_error()
    for isa in ISAS:
        with kernels_of(isa):
            losses = [part.with_options(**one_by_one).call("cross_entropy") for part in parts]
            whole = problem.with_options(**one_by_one).call("cross_entropy")
            assert_same(np.concatenate(losses), whole)
            results = [part.with_options(**added_up).call("cross_entropy_and_grad") for part in parts]
            loss, grad = problem.with_options(**added_up).call("cross_entropy_and_grad")
            assert_close(results[0][0] + results[1][0], loss, rounding)
            gradients = [part[1] for part in results]
            assert_same(np.concatenate(gradients, problem.first_sample_axis), grad)


@examples(20)
@given(problems(n_logits=40_000), st.sampled_from(KINDS))
def test_same_bits_for_any_thread_count(problem, kind):
    plain, v, u = problem.without("softcap", "z_loss"), problem.direction(), problem.direction(may_break=False)

    def results(n_threads):
        yield problem.call("cross_entropy", n_threads=n_threads)
        yield from problem.call("cross_entropy_and_grad", n_threads=n_threads)
        yield from plain.call("cross_entropy_grad_hess", kind=kind, n_threads=n_threads)
        yield plain.call("cross_entropy_hvp", v, n_threads=n_threads)
        yield softxent.softmax_jvp(problem.logits, u, problem.axis, n_threads=n_threads)
        yield softxent.softmax_vjp(problem.logits, u, problem.axis, n_threads=n_threads)
        for name in FAMILY:
            yield getattr(softxent, name)(problem.logits, problem.axis, n_threads=n_threads, **problem.family_options)

    for isa in ISAS:
        with kernels_of(isa):
            one = list(results(1))
            for n_threads in (2, 3):
                for array, expected in zip(results(n_threads), one, strict=True):
                    assert_same(array, expected)


@examples(150)
@given(problems(), st.sampled_from(KINDS))
def test_an_output_given_holds_the_bits_of_a_new_one(problem, kind):
    plain = problem.without("softcap", "z_loss")
    assert_same_loss = assert_same
    if problem.reduction != "none":
        # The order of the sum depends on which axes of all arrays can be joined.
        rounding = max(Bounds(each).sum_error() for each in (problem, plain))
        assert_same_loss = functools.partial(assert_close, bound=rounding)
    for isa in ISAS:
        with kernels_of(isa):
            loss, grad = problem.call("cross_entropy_and_grad")
            assert_same_loss(problem.call("cross_entropy"), loss)
            for start, accumulate in ((NAN, False), (0, True)):
                out = problem.out(start)
                same_loss, _ = problem.call("cross_entropy_and_grad", out=out, accumulate=accumulate)
                assert_same_loss(same_loss, loss)
                assert_same(out, grad)
            out = problem.out(), problem.out()
            loss, *expected = plain.call("cross_entropy_grad_hess", kind=kind)
            same_loss, *_ = plain.call("cross_entropy_grad_hess", kind=kind, out=out)
            assert_same_loss(same_loss, loss)
            assert_same(out, expected)


@examples(150)
@given(problems())
def test_inputs_are_never_written(problem):
    plain, v, axis = problem.without("softcap", "z_loss"), problem.direction(), problem.axis
    upstream = laid_out(np.ones(problem.sample_shape), "any", problem.rng) if problem.reduction == "none" else 1.0
    arrays = [problem.logits, problem.labels, v, upstream, *problem.options.values()]
    arrays = [array for array in arrays if isinstance(array, np.ndarray)]
    before = [memory_of(array).tobytes() for array in arrays]
    for isa in ISAS:
        with kernels_of(isa):
            problem.call("cross_entropy")
            problem.call("cross_entropy_and_grad", grad_output=upstream)
            plain.call("cross_entropy_grad_hess")
            plain.call("cross_entropy_hvp", v)
            for name in FAMILY:
                getattr(softxent, name)(problem.logits, axis, **problem.family_options)
            softxent.softmax_jvp(problem.logits, v, axis)
            softxent.softmax_vjp(problem.logits, v, axis)
            if problem.logits.size * problem.n_classes <= 50_000:
                softxent.softmax_jacobian(problem.logits, axis)
    assert [memory_of(array).tobytes() for array in arrays] == before


# --- Derivatives, by differences and by each other --------------------------------------------------------------------

# Numbers for which a difference quotient is near the derivative.
ORDINARY = {"dtypes": [F8], "textures": ["spread", "ties", "confident"], "defects": []}


def to_either_side(problem):
    """The problem a step ahead and a step behind, the step itself, and how far a difference is from a derivative.

    With steps of h min(1, T, softcap) v a central difference is off by h^2 / 6 times the function's third derivative
    along v, and each further derivative of softmax and tanh brings in at most v / T and 2 v / softcap. With h = 1e-5
    and |v| <= 1 that leaves 1e-9 of the sizes of the terms that are differentiated, with room for the powers of two.
    """
    h = 1e-5 * min(problem.options.get("temperature", 1.0), problem.options.get("softcap", 1.0), 1.0)
    step = h * problem.rng.uniform(-1, 1, problem.logits.shape)
    ahead, behind = (replace(problem, logits=problem.logits + sign * step) for sign in (1, -1))
    return ahead, behind, ahead.logits - behind.logits, 1e-9 * 2 * h


@examples(200)
@given(problems(**ORDINARY))
def test_the_gradient_is_how_the_loss_changes(problem):
    ahead, behind, step, relative = to_either_side(problem)
    bounds = Bounds(problem)
    # For each sample, the size of the changes that its loss may have.
    size = bounds.q.sum(axis=-1) / bounds.log_base + 2 * bounds.z_loss * (1 + bounds.lse[..., 0])
    bound = relative * bounds.scale[..., 0] * size / bounds.temperature
    bound = (bound if problem.reduction == "none" else bound.sum()) + 4 * bounds.loss()
    for isa in ISAS:
        with kernels_of(isa):
            _, grad = problem.call("cross_entropy_and_grad")
            with np.errstate(invalid="ignore"):  # mass in a removed class makes a loss infinite
                change = np.subtract(ahead.call("cross_entropy"), behind.call("cross_entropy"))
            along = (grad * step).sum(axis=problem.axis if problem.reduction == "none" else None)
            finite = np.isfinite(change)
            assert np.all(np.abs(along - change)[finite] <= bound[finite])


@examples(200)
@given(problems(**ORDINARY, options=all_but("softcap", "z_loss")))
def test_hessian_vector_products_are_how_the_gradient_changes(problem):
    ahead, behind, step, relative = to_either_side(problem)
    bounds = Bounds(problem)
    bound = relative * problem.as_given(bounds.curvature() * np.ones(problem.n_classes)) + 4 * bounds.grad()
    for isa in ISAS:
        with kernels_of(isa):
            change = ahead.call("cross_entropy_and_grad")[1] - behind.call("cross_entropy_and_grad")[1]
            assert_close(problem.call("cross_entropy_hvp", step), np.where(np.isfinite(change), change, NAN), bound)


@examples(150)
@given(problems(dtypes=[F4, F8], options=all_but("softcap", "z_loss"), defects=["classes at -inf"]))
def test_hessian_diagonals_are_products_with_unit_vectors(problem):
    assume(problem.n_classes <= 34)
    n, axis, bounds = problem.n_classes, problem.axis, Bounds(problem)
    units = [problem.as_given(np.broadcast_to(unit, (*problem.sample_shape, n))) for unit in np.eye(n)]
    product_bounds = [(bounds.hess() + bounds.hvp(v)).take(k, axis) for k, v in enumerate(units)]
    for isa in ISAS:
        with kernels_of(isa):
            _, _, exact = problem.call("cross_entropy_grad_hess")
            for k, v in enumerate(units):
                product = problem.call("cross_entropy_hvp", v)
                assert_close(product.take(k, axis), exact.take(k, axis), product_bounds[k])
            _, _, xgboost = problem.call("cross_entropy_grad_hess", kind="xgboost")
            expected = np.where(problem.used, np.maximum(2 * exact, 1e-16), 0)
            assert_close(xgboost, expected, 2 * bounds.hess("xgboost"))
            _, _, lightgbm = problem.call("cross_entropy_grad_hess", kind="lightgbm")
            assert_close(lightgbm, exact * (n / max(n - 1, 1)), 2 * bounds.hess("lightgbm"))


@examples(150)
@given(problems(dtypes=[F4, F8], options=(), defects=["classes at -inf"]))
def test_jacobian_products_are_products_with_the_jacobian(problem):
    assume(problem.logits.size * problem.n_classes <= 50_000)
    v, axis, bounds = problem.direction(), problem.axis, Bounds(problem)
    jacobian_bound, product_bound = bounds.jacobian(), bounds.product(v)
    v_last = problem.classes_last(problem.seen(v))[..., None].astype(np.longdouble)
    for isa in ISAS:
        with kernels_of(isa):
            jacobian = softxent.softmax_jacobian(problem.logits, axis).astype(np.longdouble)
            transposed = np.swapaxes(jacobian, -1, -2)
            for product, matrix in ((softxent.softmax_jvp, jacobian), (softxent.softmax_vjp, transposed)):
                expected = problem.as_given((matrix @ v_last)[..., 0])
                bound = problem.as_given((jacobian_bound @ np.abs(v_last))[..., 0]) + product_bound
                assert_close(product(problem.logits, v, axis), expected, bound)


# --- Refusals ---------------------------------------------------------------------------------------------------------

NOT_FINITE = st.sampled_from([NAN, INF, -INF])
BAD_NUMBERS = {
    "label_smoothing": NOT_FINITE | st.floats(max_value=0, exclude_max=True) | st.floats(min_value=1, exclude_min=True),
    "temperature": NOT_FINITE | st.floats(max_value=0),
    "softcap": NOT_FINITE | st.floats(max_value=0),
    "z_loss": NOT_FINITE | st.floats(max_value=0, exclude_max=True),
    "base": NOT_FINITE | st.floats(max_value=0) | st.just(1.0),
}
assert {*BAD_NUMBERS} == {*Options._fields} - {"class_weight", "sample_weight", "where"}


def spoilt(array, values, rng):
    """A copy in which one entry is replaced."""
    array = np.array(array)
    array[tuple(rng.integers(n) for n in array.shape)] = rng.choice(values)
    return array


def shape_unlike(shape, rng):
    """A shape with one entry or one axis more or less than it should have. No shape broadcasts."""
    others = [(*shape, 1), (1, *shape)]
    if shape:
        others += [(shape[0] + 1, *shape[1:]), shape[1:], (*shape[:-1], 0)]
    return others[rng.integers(len(others))]


@st.composite
def refused(draw, problem):
    """The name of an argument, a value that is invalid for it, and the error that must be raised."""
    rng, shape = problem.rng, problem.logits.shape
    name = draw(st.sampled_from([*BAD_NUMBERS, "class_weight", "sample_weight", "where", "labels", "reduction"]))
    if name in BAD_NUMBERS:
        return name, draw(BAD_NUMBERS[name]), ValueError
    if name == "reduction":
        return name, draw(st.sampled_from(["average", "", "Mean", None, 0])), ValueError
    if name == "labels":
        bad = [-1, problem.n_classes, -100, 2**31 - 1]
        return name, spoilt(np.zeros(problem.sample_shape, int), bad, rng), IndexError
    if name == "where":
        if draw(st.booleans()):
            return name, np.ones(shape, draw(st.sampled_from([F4, F8, np.dtype("i8"), np.dtype("u1")]))), TypeError
        wrong = [(2, *shape), (*shape[:-1], shape[-1] + 1)]
        return name, np.ones(wrong[rng.integers(2)], bool), ValueError
    wanted = (problem.n_classes,) if name == "class_weight" else problem.sample_shape
    if draw(st.booleans()):
        return name, np.ones(shape_unlike(wanted, rng)), ValueError
    return name, spoilt(np.ones(wanted), [NAN, -1.0, -1e-30, -INF], rng), ValueError


@examples(300)
@given(problems(defects=[], options=all_but("ignore_index")), st.data())
def test_a_value_out_of_its_range_is_refused_by_name_and_nothing_is_written(problem, data):
    assume(problem.logits.size)
    name, value, error = data.draw(refused(problem))
    bad = replace(problem, labels=value) if name == "labels" else problem.with_options(**{name: value})
    plain = bad.without("softcap", "z_loss")
    losses, grad, hess, product = problem.out(shape=problem.sample_shape), *(problem.out() for _ in range(3))
    per_sample = {} if name == "reduction" else {"reduction": "none"}
    calls = [
        lambda: bad.call("cross_entropy"),
        lambda: bad.with_options(**per_sample).call("cross_entropy", out=losses),
        lambda: bad.call("cross_entropy_and_grad", out=grad),
        lambda: bad.call("cross_entropy_and_grad", out=grad, accumulate=True),
    ]
    if name not in ("softcap", "z_loss"):
        calls.append(lambda: plain.call("cross_entropy_grad_hess", out=(grad, hess)))
        calls.append(lambda: plain.call("cross_entropy_hvp", problem.logits, out=product))
    if name in ("where", "temperature"):
        for function in (softxent.softmax, softxent.log_softmax):
            calls.append(lambda function=function: function(problem.logits, problem.axis, out=grad, **{name: value}))
        calls.append(lambda: softxent.logsumexp(problem.logits, problem.axis, out=losses, **{name: value}))
    outs = (losses, grad, hess, product)
    before = [memory_of(out).tobytes() for out in outs]
    for call in calls:
        with pytest.raises(error, match=rf"\b{name}\b"):
            call()
        assert [memory_of(out).tobytes() for out in outs] == before
