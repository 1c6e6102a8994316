"""How exact each operation is, with every option: the one list of bounds, and the truth that they are held against.

test_bounds.py holds the kernels to the list, and docs/accuracy.md to showing it; `python tests/bounds.py` measures, and
prints that page's table. An operation with `_and_grad` in its name stands for its gradient. The truth is mpmath's, with
50 digits (of entropies and divergences 120, in exact.py), of the definitions in softxent.h: softxent.reference has no
part in it. A bound is an expression in numbers of the exact answer, in eps:

    x            the size of the exact result
    depth        (m - z_k) / T of an entry, after softcap and `where`, m the largest of these logits
    lead         how far the largest leads the next, over T; of an index label: how far that one leads, or 0
    p            the probability of an entry
    P, Q         p_k W and q_k of the gradient's p_k W - q_k, times what multiplies the sample, over T and ln(base). At
                 an index label, and where one class has more than half of the probability, p_k W - q_k = Q - P with
                 what the other classes have of both: P = (1 - p_k) W, and Q is 0 at an index label
    d            of P: depth, or at such a class lead
    N, W         the loss without z_loss, and sum q, both times the sample's weight and over ln(base)
    m, log_sum   |m| / T, and log sum exp of what lies below it: lse - m / T
    e            what lse may be off: 2 m + 4 (1 + lead) log_sum, and `cap`
    cap          what z / T may be off after a softcap: 9 times the largest |z| / T
    r            |logit| / softcap
    z            z_loss times the sample's weight; `pull`: 2 z_loss p_k, times what multiplies the sample, over T
    w            what multiplies p_k (v_k - sum p v) in a product of second derivatives; elsewhere 1 / T
    far, costs   of the temperature's derivative: W times the mean of depth (1 + depth) over p; and W times the mean of
                 depth, plus sum q depth; both, and `rate` (W), times what multiplies the sample, over T and ln(base)
    pull_T       of it: 2 z_loss times what multiplies the sample, over T; `far_p`: far of W = 1 alone; `most`: the mean
                 of depth, and m
    spread, terms, slope, curve, depths: of entropies and divergences, with p, w, mean, e, P and Q of theirs: exact.py
    both         of a matrix: the depths of its row and its column, together; on the diagonal d, once
    v, mean      |v_k - v_top|, and the mean of |v_j - v_top| (1 + depth_j) over p, twice those of equal maxima
"""

from __future__ import annotations

import ctypes
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np

import exact as exactly
import softxent
from softxent import SparseTarget, _kernels

DTYPES = (np.float32, np.float64)
N_CLASSES = (2, 9, 70, 600)  # the last number is of more classes than a kernel holds at once
FEW_CLASSES = (2, 9)  # numbers of classes for which a matrix is formed


@dataclass(frozen=True)
class Bound:
    """A bound on the error of an operation with some options. Each of `cases` is asked with inputs of every kind."""

    operation: str
    options: str  # the bound in words
    bound: str  # the bound in eps
    cases: tuple[dict[str, Any], ...] = field(default=({},), compare=False)
    n_classes: tuple[int, ...] = N_CLASSES


TEMPERATURES = ({"temperature": 1e-3}, {"temperature": 0.3}, {"temperature": 1.7}, {"temperature": 1e3})
OWN = ({"temperature": "own"}, {"temperature": "own", "sample_weight": 1, "base": 2})
WEIGHTS = ({"class_weight": 1}, {"sample_weight": 1}, {"base": 2}, {"base": 0.3}, {"temperature": 0.3, "base": 10})
UPSTREAM = ({"grad_output": 2.0**16}, {"grad_output": 2.0**60}, {"grad_output": 2.0**-10}, {"grad_output": "own"})
SPREAD = (
    {"label_smoothing": 1e-3},
    {"label_smoothing": 0.1, "class_weight": 1},
    {"target": 1},
    {"label_smoothing": 1.0},
)
SPARSE = ({"sparse": 1}, {"sparse": 3}, {"sparse": 3, "label_smoothing": 0.1, "class_weight": 1})
CAPS = (
    {"softcap": 1.0},
    {"softcap": 30.0},
    {"softcap": 1.0, "temperature": 1e-3},
    {"softcap": 50.0, "temperature": 3.0},
)
Z_LOSSES = ({"z_loss": 1e-4}, {"z_loss": 2.0}, {"z_loss": 0.5, "temperature": 0.3})
ALL = (
    {
        "softcap": 20.0,
        "z_loss": 0.1,
        "label_smoothing": 0.1,
        "class_weight": 1,
        "sample_weight": 1,
        "where": 1,
        "base": 2,
    },
    {"softcap": 5.0, "z_loss": 1e-3, "target": 1, "temperature": 0.7, "sample_weight": 1, "where": 1},
)
# Second derivatives take neither softcap nor z_loss.
SECOND = (
    *({}, {"where": 1}, {"temperature": 0.3}, {"temperature": "own"}, {"sparse": 3}),
    {"target": 1, "class_weight": 1, "sample_weight": 1, "base": 2},
)
OF_SOFTMAX = ({}, {"where": 1}, *TEMPERATURES)
OF_ENTROPY = (*OF_SOFTMAX, {"grad_output": "own"}, {"grad_output": 2.0**-10, "temperature": 0.3})
DIVERGENCES = ({}, {"where": 1}, *TEMPERATURES, *OWN[:1], {"sample_weight": 1, "grad_output": "own"})
FROM_PROBABILITIES = tuple(case | {"target": "near"} for case in DIVERGENCES)
FROM_TEACHER = tuple(case | {"target_logits": True} for case in DIVERGENCES)
IN_PARTS = ({}, {"temperature": 0.3}, {"temperature": 1.7, "base": 2})
PRODUCT = "(4 * (1 + depth) + 2) * w * p * (v + mean)"

BOUNDS = [
    Bound("softmax", "none, `where`", "4 * (1 + depth) * x", ({}, {"where": 1})),
    Bound("softmax", "temperature", "4 * (1 + depth) * x", TEMPERATURES),
    Bound("log_softmax", "none, `where`", "4 * (1 + lead) * x", ({}, {"where": 1})),
    Bound("log_softmax", "temperature", "(4 * (1 + lead) + 2) * x", TEMPERATURES),
    Bound("logsumexp", "none, `where`, temperature", "e", ({}, {"where": 1}, *TEMPERATURES)),
    Bound("loss", "none, `where`", "4 * (1 + lead) * x", ({}, {"where": 1})),
    Bound("loss", "temperature, weights, base", "(4 * (1 + lead) + 2) * x", TEMPERATURES + WEIGHTS),
    Bound("loss", "temperatures of samples", "(4 * (1 + lead) + 2) * x", OWN),
    Bound("loss", "label smoothing, distributions", "(4 * (1 + lead) + 4) * x", SPREAD),
    Bound("loss", "sparse targets", "(4 * (1 + lead) + 4) * x", SPARSE),
    Bound("loss", "softcap", "(4 * (1 + lead) + 2) * x + cap * W", CAPS),
    Bound("loss", "z_loss", "(4 * (1 + lead) + 2) * N + z * ((2 * lse + eps * e) * e + 3 * lse**2)", Z_LOSSES),
    Bound(
        "loss",
        "all at once",
        "(4 * (1 + lead) + 4) * N + cap * W + z * ((2 * lse + eps * e) * e + 3 * lse**2)",
        ALL,
    ),
    Bound("gradient", "none, `where`", "4 * (1 + d) * P", ({}, {"where": 1})),
    Bound("gradient", "temperature, weights, base", "(4 * (1 + d) + 2) * P", TEMPERATURES + WEIGHTS),
    Bound("gradient", "temperatures of samples", "(4 * (1 + d) + 2) * P", OWN),
    Bound("gradient", "grad_output", "(4 * (1 + d) + 2) * P", UPSTREAM),
    Bound("gradient", "label smoothing, distributions", "(4 * (1 + d) + 2) * P + 3 * Q", SPREAD),
    Bound("gradient", "sparse targets", "(4 * (1 + d) + 2) * P + 3 * Q", SPARSE),
    Bound("gradient", "softcap", "(4 * (1 + d) + 2 + cap) * P + 5 * (1 + r) * x", CAPS),
    Bound("gradient", "z_loss", "(4 * (1 + d) + 2) * P + pull * (lse * (4 * (1 + depth) + 2) + e)", Z_LOSSES),
    Bound(
        "gradient",
        "all at once",
        "(4 * (1 + d) + 2 + cap) * P + 3 * Q + pull * (lse * (4 * (1 + depth) + 2 + cap) + e) + 5 * (1 + r) * x",
        ALL,
    ),
    Bound(
        "temperature's derivative",
        "temperature, weights, base, grad_output, distributions",
        "4 * far + 3 * costs",
        ({}, {"where": 1}, *TEMPERATURES, *WEIGHTS, *OWN, *UPSTREAM, *SPREAD, *SPARSE),
    ),
    Bound("temperature's derivative", "softcap", "4 * far + (3 + cap) * costs + 2 * cap * rate", CAPS),
    Bound(
        "temperature's derivative",
        "z_loss",
        "4 * far + 3 * costs + pull_T * (lse * (4 * far_p + 3 * most) + e * most)",
        Z_LOSSES,
    ),
    Bound("Hessian's diagonal, exact", "all that it takes", "(4 * (1 + d) + 2) * x", SECOND),
    Bound("Hessian's diagonal, xgboost", "all that it takes", "(4 * (1 + d) + 2) * x", SECOND),
    Bound("Hessian's diagonal, lightgbm", "all that it takes", "(4 * (1 + d) + 2) * x", SECOND),
    Bound("cross_entropy_hvp", "all that it takes", PRODUCT, SECOND),
    Bound("softmax_jvp, softmax_vjp", "none, `where`, temperature", PRODUCT, OF_SOFTMAX),
    Bound("log_softmax_jvp", "none, `where`, temperature", "w * (4 * mean + 3 * v)", OF_SOFTMAX),
    Bound("log_softmax_vjp", "none, `where`, temperature", "(4 * (1 + d) + 2) * P + 3 * Q", OF_SOFTMAX),
    Bound("softmax_jacobian", "none", "(12 + 4 * both) * x", n_classes=FEW_CLASSES),
    Bound("entropy", "none, `where`, temperature", exactly.ENTROPY, OF_SOFTMAX),
    Bound("entropy_and_grad", "all that it takes", exactly.ENTROPY_GRAD, OF_ENTROPY),
    Bound("kl_divergence", "from probabilities", exactly.DIVERGENCE, FROM_PROBABILITIES),
    Bound("kl_divergence", "from a teacher", exactly.DIVERGENCE, FROM_TEACHER),
    Bound("kl_divergence_and_grad", "from probabilities", exactly.GRAD_FROM_PROBABILITIES, FROM_PROBABILITIES),
    Bound("kl_divergence_and_grad", "from a teacher", exactly.GRAD_FROM_TEACHER, FROM_TEACHER),
    Bound("loss from parts", "none, temperature, base", "(4 * (1 + lead) + 2) * x", IN_PARTS),
    Bound("loss from parts", "softcap", "(4 * (1 + lead) + 2) * x + cap * W", CAPS),
    Bound(
        "loss from parts", "z_loss", "(4 * (1 + lead) + 2) * N + z * ((2 * lse + eps * e) * e + 3 * lse**2)", Z_LOSSES
    ),
    Bound("gradient from parts", "none, temperature, base", "(4 * (1 + d) + 2) * P", IN_PARTS),
    Bound("gradient from parts", "softcap", "(4 * (1 + d) + 2 + cap) * P + 5 * (1 + r) * x", CAPS),
    Bound(
        "gradient from parts", "z_loss", "(4 * (1 + d) + 2) * P + pull * (lse * (4 * (1 + depth) + 2) + e)", Z_LOSSES
    ),
]

# ----------------------------------------------------------------------------------------------------------------------
# Inputs: random and adversarial.


def noisy_rows(rng, n_classes, n):
    scale, offset = rng.choice([1e-3, 0.3, 1, 4, 20], (n, 1)), rng.choice([0, 3.7, -30.3, 200.1], (n, 1))
    return rng.normal(size=(n, n_classes)) * scale + offset


def leading_rows(rng, n_classes):
    """Logits in which one class leads the others by little, by much, and by as much as the dtype can show."""
    for lead in (1e-6, 0.1, 1, 12, 30, 80, 95, 103, 600, 740):
        row = rng.normal(size=n_classes) * 0.5
        row[0] = row[1:].max(initial=row[0]) + lead
        yield row


def difficult_rows(rng, n_classes):
    for distance in (8.2, 11.9):  # nearly all the mass lies where a rounded z - m costs most
        yield np.concatenate([[5.4321], np.full(n_classes - 1, 5.4321 - distance)])
    for noise in (1e-3, 1):  # lse is nearly 0, where the gradient of z_loss changes sign
        row = rng.normal(size=n_classes) * noise
        yield row - np.log(np.exp(row).sum())
    yield np.full(n_classes, 0.37)


def rows_of_every_kind(rng, n_classes, temperature, softcap, dtype):
    """Logits and labels of every kind. With a softcap, the softcap's slope at some logits is near or below the normal
    numbers.
    """
    rows = [*noisy_rows(rng, n_classes, 12), *leading_rows(rng, n_classes), *difficult_rows(rng, n_classes)]
    rows = np.array(rows) * temperature
    if softcap:
        wide = rng.uniform(-1, 1, (6, n_classes)) * softcap * np.array([[1e-3], [0.3], [2], [10], [45], [400]])
        rows = np.concatenate([rows, wide])
    if n_classes > 100:
        rows = rows[::6]  # mpmath is slow
    labels = np.where(np.arange(len(rows)) % 3 == 0, rng.integers(0, n_classes, len(rows)), rows.argmax(axis=1))
    return rows.astype(dtype), labels


def teachers(rng, z, T):
    """Logits near those of the students, and far."""
    distance = np.array([0, 1e-6, 1e-3, 0.1, 1, 8])[np.arange(len(z)) % 6]
    return (z + rng.normal(size=z.shape) * np.reshape(distance * T, (-1, 1))).astype(z.dtype)


def sparse_target(rng, n, n_classes, n_masses, dtype):
    """Some classes are there twice, and some are none. Sums of two masses are exact."""
    indices = rng.integers(-1, n_classes, (n, n_masses))
    return SparseTarget(indices, (rng.integers(0, 1024, (n, n_masses)) / 1024).astype(dtype))


def dense(labels, n_classes):
    """A sparse target as a distribution; other labels as they are."""
    if not isinstance(labels, SparseTarget):
        return labels
    masses = np.zeros((len(labels.indices), n_classes + 1))  # the last class stands for -1
    np.add.at(masses, (np.arange(len(masses))[:, None], labels.indices), labels.values)
    return masses[:, :-1]


def inputs_of(case, n_classes, dtype):
    """Logits, labels or a target, the direction, and the options as the functions take them."""
    rng = np.random.default_rng([n_classes, len(repr(case))])
    options = dict(case)
    T = case.get("temperature", 1)
    z, labels = rows_of_every_kind(rng, n_classes, 1 if T == "own" else T, case.get("softcap"), dtype)
    n = len(z)
    if T == "own":
        T = options["temperature"] = 10 ** rng.uniform(-3, 3, n)
        z = (z * T[:, None]).astype(dtype)
    target = options.pop("target", None)
    if target == "near" or "target_logits" in options:
        labels = teachers(rng, z, T)
        if target:
            labels = softxent.softmax(labels.astype(np.float64) / np.reshape(T, (-1, 1))).astype(dtype)
    elif target:
        labels = rng.dirichlet(np.full(n_classes, 0.3), n).astype(dtype)
    if "sparse" in options:
        labels = sparse_target(rng, n, n_classes, options.pop("sparse"), dtype)
    if "where" in options:
        options["where"] = rng.random(z.shape) < 0.7
        options["where"][np.arange(n), labels if labels.ndim == 1 else z.argmax(axis=1)] = True
        if target and target != "near":
            labels *= options["where"]
    if "class_weight" in options:
        options["class_weight"] = rng.uniform(0.1, 3, n_classes).astype(dtype)
    if "sample_weight" in options:
        options["sample_weight"] = rng.uniform(0.1, 3, n).astype(dtype)
    if options.get("grad_output") == "own":
        options["grad_output"] = (2.0 ** rng.integers(-20, 40, n)).astype(dtype)
    return z, labels, rng.normal(size=z.shape).astype(dtype), options


# ----------------------------------------------------------------------------------------------------------------------
# The truth.


class Numbers:
    """Exact numbers in an array, each the sum of two float64."""

    def __init__(self, rows=(), high=None, low=None):
        if high is not None:
            self.high, self.low = high, low
            return
        self.high = np.array([[float(x) for x in row] for row in rows])
        self.low = np.array(
            [
                [float(x - h) if mp.isfinite(x) else 0.0 for x, h in zip(row, map(float, row), strict=True)]
                for row in rows
            ]
        )

    def distance(self, got):
        with np.errstate(invalid="ignore"):
            return np.where(got == self.high, 0.0, got - self.high) - self.low


class Sample:
    """One sample: its logits, target and options as exact numbers, its answers, and the numbers that bounds are made
    of.
    """

    def __init__(self, z, y, v, options, i):
        def number(name, default):
            value = options.get(name, default)
            return mp.mpf(float(value[i] if np.ndim(value) else value))

        self.classes, self.is_few = range(len(z)), len(z) in FEW_CLASSES
        self.T, self.z_loss, self.smoothing = (
            number("temperature", 1),
            number("z_loss", 0),
            number("label_smoothing", 0),
        )
        self.s, self.cap = number("sample_weight", 1), options.get("softcap")
        self.upstream = self.s * number("grad_output", 1)
        self.ln_base = mp.log(mp.mpf(options["base"])) if "base" in options else mp.mpf(1)
        self.logits = [mp.mpf(float(x)) for x in z]
        self.allowed = [bool(w) for w in options["where"][i]] if "where" in options else [True] * len(z)
        self.left = [k for k in self.classes if self.allowed[k]]
        self.label = None if np.ndim(y) else int(y)
        self.find_probabilities()
        self.find_density(y, options.get("class_weight"))
        v = [mp.mpf(float(x)) * ok for x, ok in zip(v, self.allowed, strict=True)]
        self.g, self.v = v, [x - v[self.top] for x in v]

    def find_probabilities(self):
        cap = self.cap
        self.slope = [1 / mp.cosh(x / cap) ** 2 if cap else mp.mpf(1) for x in self.logits]
        self.capped = [cap * mp.tanh(x / cap) if cap else x for x in self.logits]
        self.top = max(self.left, key=lambda k: self.capped[k])
        self.m = self.capped[self.top]
        self.depth = [(self.m - x) / self.T for x in self.capped]
        e = [mp.exp(-x) if ok else mp.mpf(0) for x, ok in zip(self.depth, self.allowed, strict=True)]
        self.rest = mp.fsum(e[k] for k in self.left if k != self.top)
        self.p = [x / (1 + self.rest) for x in e]
        # 1 - p of the largest class may be smaller than 50 digits show.
        self.not_p = [1 - x for x in self.p]
        self.not_p[self.top] = self.rest / (1 + self.rest)
        self.log_sum = mp.log1p(self.rest)
        self.lse = self.m / self.T + self.log_sum

    def find_density(self, y, weight):
        t = [mp.mpf(int(k == y)) for k in self.classes] if np.ndim(y) == 0 else [mp.mpf(float(x)) for x in y]
        share = self.smoothing / len(self.left)
        self.q = [(1 - self.smoothing) * t[k] + share * self.allowed[k] for k in self.classes]
        if weight is not None:
            self.q = [x * mp.mpf(float(w)) for x, w in zip(self.q, weight, strict=True)]
        self.W = mp.fsum(self.q)
        self.others_q = mp.fsum(self.q[k] for k in self.classes if k != self.top)
        self.nats = mp.fsum(self.q[k] * (self.log_sum + self.depth[k]) for k in self.classes if self.q[k])

    def answers(self):
        p, u = self.p, [self.upstream / self.T * x for x in self.slope]
        less_q = [p[k] * self.W - self.q[k] for k in self.classes]
        less_q[self.top] = self.others_q - self.W * self.not_p[self.top]
        pull = 2 * self.z_loss * self.lse
        self.hess_scale = self.upstream * self.W / (self.T**2 * self.ln_base)
        mean_v = mp.fsum(x * y for x, y in zip(p, self.v, strict=True))
        product = [x * (y - mean_v) for x, y in zip(p, self.v, strict=True)]
        log_p = [-(x + self.log_sum) for x in self.depth]
        sum_g = mp.fsum(self.g)
        mean_depth = mp.fsum(p[k] * self.depth[k] for k in self.left)
        from_mean = self.W * mean_depth - mp.fsum(self.q[k] * self.depth[k] for k in self.left)
        return {
            "loss": [self.s * (self.nats / self.ln_base + self.z_loss * self.lse**2)],
            "grad": [u[k] * (less_q[k] / self.ln_base + pull * p[k]) * self.allowed[k] for k in self.classes],
            "softmax": p,
            "log_softmax": [x if ok else mp.mpf("-inf") for x, ok in zip(log_p, self.allowed, strict=True)],
            "logsumexp": [self.lse],
            "hess": [self.hess_scale * x * y for x, y in zip(p, self.not_p, strict=True)],
            "hvp": [self.hess_scale * x for x in product],
            "jvp": [x / self.T for x in product],
            "log_jvp": [(x - mean_v) / self.T * ok for x, ok in zip(self.v, self.allowed, strict=True)],
            "log_vjp": [(x - y * sum_g) / self.T for x, y in zip(self.g, p, strict=True)],
            "temperature_grad": [
                self.upstream / self.T * (from_mean / self.ln_base + pull * (mean_depth - self.m / self.T))
            ],
            "jacobian": [
                p[k] * self.not_p[k] if k == j else -p[k] * p[j]
                for k in self.classes
                for j in self.classes
                if self.is_few
            ],
        }

    def sizes(self):
        """The numbers that bounds are made of, by their names, computed after the answers."""
        is_max = [self.capped[k] == self.m and self.allowed[k] for k in self.classes]
        others = [self.depth[k] for k in self.left if k != self.top]
        largest_lead = float(min(others, default=0))
        is_index = self.label is not None and not self.smoothing
        confident = [self.rest < 1 and x for x in is_max]
        special = [k == self.label for k in self.classes] if is_index else confident
        lead = 0.0 if is_index and self.label != self.top else largest_lead
        depth = [float(x) if ok else 0.0 for x, ok in zip(self.depth, self.allowed, strict=True)]
        u = [float(abs(self.upstream / self.T * x)) for x in self.slope]
        base, W, m = float(abs(self.ln_base)), float(self.W), float(abs(self.m / self.T))
        P = [float(self.not_p[k] if special[k] else self.p[k]) * W for k in self.classes]
        Q = [0.0 if is_index else float(self.others_q if special[k] else self.q[k]) for k in self.classes]
        cap = 9 * float(max(abs(self.capped[k]) for k in self.left) / self.T) if self.cap else 0.0
        w = float(abs(self.hess_scale))
        mean = float(mp.fsum(self.p[k] * abs(self.v[k]) * (1 + self.depth[k]) for k in self.left))
        mean_depth = float(mp.fsum(self.p[k] * self.depth[k] for k in self.left))
        far_p = float(mp.fsum(self.p[k] * self.depth[k] * (1 + self.depth[k]) for k in self.left))
        of_T = float(abs(self.upstream / self.T))
        g = [float(abs(x)) for x in self.g]
        all_g = sum(g)
        return {
            "depth": depth,
            "p": [float(x) for x in self.p],
            "P": [x * y / base for x, y in zip(u, P, strict=True)],
            "Q": [x * y / base for x, y in zip(u, Q, strict=True)],
            "d": [lead if special[k] else depth[k] for k in self.classes],
            "both": [
                (largest_lead if confident[k] else depth[k]) if k == j else depth[k] + depth[j]
                for k in self.classes
                for j in self.classes
                if self.is_few
            ],
            "lead": [lead],
            "lead_of_log_p": [largest_lead if x else 0.0 for x in is_max],
            "largest_lead": [largest_lead],
            "d_of_hess": [largest_lead if confident[k] else depth[k] for k in self.classes],
            "N": [float(abs(self.s * self.nats)) / base],
            "W": [float(self.s) * W / base],
            "m": [m],
            "log_sum": [float(self.log_sum)],
            "lse": [float(abs(self.lse))],
            "e": [2 * m + 4 * (1 + largest_lead) * float(self.log_sum) + cap],
            "cap": [cap],
            "r": [float(abs(x) / self.cap) if self.cap else 0.0 for x in self.logits],
            "z": [float(self.z_loss * self.s)],
            "pull": [2 * float(self.z_loss * x) * y for x, y in zip(self.p, u, strict=True)],
            "w": [w],
            "w_of_T": [float(1 / self.T)],
            "P_of_g": [float((self.not_p[k] if confident[k] else self.p[k]) / self.T) * all_g for k in self.classes],
            "Q_of_g": [(all_g - g[k] if confident[k] else g[k]) / float(self.T) for k in self.classes],
            "far": [of_T * W * far_p / base],
            "far_p": [far_p],
            "costs": [of_T * (W * mean_depth + float(mp.fsum(self.q[k] * self.depth[k] for k in self.left))) / base],
            "rate": [of_T * W / base],
            "most": [mean_depth + m],
            "pull_T": [2 * float(self.z_loss) * of_T],
            "v": [float(abs(x)) for x in self.v],
            "mean": [mean + 2 * max(float(abs(self.v[k])) for k in self.left if is_max[k])],
            "scale": [max(1.0, float(abs(self.upstream / self.T)) * (1 + W) * (1 + 1 / base) + w)],
            "allowed": self.allowed,
        }


@cache
def exact(case_items, n_classes, dtype):
    """The inputs of a case, the exact answers, and the numbers that bounds are made of."""
    z, labels, v, options = inputs_of(dict(case_items), n_classes, dtype)
    with mp.workdps(50):
        targets = dense(labels, n_classes)
        samples = [Sample(z[i], targets[i], v[i], options, i) for i in range(len(z))]
        answers, sizes = [x.answers() for x in samples], [x.sizes() for x in samples]
        return (
            (z, labels, v, options),
            {name: Numbers([x[name] for x in answers]) for name in answers[0]},
            {name: np.array([x[name] for x in sizes]) for name in sizes[0]},
        )


@cache
def exact_of_softmax(case_items, n_classes, dtype):
    """The same of entropies, or divergences, and their gradients: by exact.py."""
    z, target, _, options = given = inputs_of(dict(case_items), n_classes, dtype)
    n = len(z)
    allowed, is_divergence = options.get("where", np.ones(z.shape, bool)), np.shape(target) == z.shape
    T, weight, upstream = (
        options.get(name, 1) * np.ones(n) for name in ("temperature", "sample_weight", "grad_output")
    )
    values, grads, sizes = [], [], []
    for i, left in enumerate(allowed):
        if is_divergence:
            one = exactly.divergence(z[i, left], target[i, left], T[i], "target_logits" in options)
        else:
            one = exactly.entropy(z[i, left], T[i])
        with mp.workdps(50):
            factor, grad = mp.mpf(float(weight[i])), np.full(n_classes, mp.mpf(0))
            grad[left] = [mp.mpf(a) + mp.mpf(b) for a, b in zip(one.high.tolist(), one.low.tolist(), strict=True)]
            values.append([factor * one.value])
            grads.append([factor * mp.mpf(float(upstream[i])) * x for x in grad])
        sizes.append({name: of_classes(x, left) for name, x in one.sizes.items()})
    sizes = {name: np.array([x[name] for x in sizes]) for name in sizes[0]}
    factors = {"value": weight[:, None], "grad": (weight * upstream)[:, None]}
    return given, {"value": Numbers(values), "grad": Numbers(grads)}, sizes | {"factors": factors, "allowed": allowed}


def of_classes(x, left):
    """A number of each class that is left, with 0 for the others; one of the sample as it is."""
    if np.ndim(x) == 0:
        return [x]
    every = np.zeros(len(left))
    every[left] = x
    return every


# ----------------------------------------------------------------------------------------------------------------------
# The library by way of C, for what has no Python function.


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("class_weight", ctypes.c_void_p)] + [
        (name, ctypes.c_double) for name in ("label_smoothing", "temperature", "softcap", "z_loss", "log_base")
    ]


def block_type():
    """The struct softxent_block, read from its header, so that it has every field."""
    header = (Path(softxent.get_include()) / "softxent.h").read_text()
    body = re.search(r"typedef struct softxent_block \{(.*?)\} softxent_block;", header, re.S)[1]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    types = {"int": ctypes.c_int, "ptrdiff_t": ctypes.c_ssize_t, "size_t": ctypes.c_size_t, "double": ctypes.c_double}
    types["int64_t"] = ctypes.c_int64
    fields = []
    for declaration in filter(None, map(str.strip, body.split(";"))):
        kind, names = re.fullmatch(r"(?:const )?(?:unsigned )?(\w+) (.*)", declaration, re.S).groups()
        for name in names.split(","):
            is_pointer = "*" in name
            fields.append((name.strip(" *\n"), ctypes.c_void_p if is_pointer else types[kind]))
    return type("Block", (ctypes.Structure,), {"_fields_": fields})


def from_parts(z, labels, options, n_parts=3):
    """Losses and gradient, from classes that are divided into so many parts."""
    library, Block, dtype = ctypes.CDLL(_kernels.__file__), block_type(), z.dtype
    suffix, (n, n_classes) = "f32" if dtype == np.float32 else "f64", z.shape
    o = Options(size=ctypes.sizeof(Options))
    for name in ("temperature", "softcap", "z_loss"):
        setattr(o, name, options.get(name, 0.0))
    o.log_base = float(np.log(options["base"])) if "base" in options else 0.0
    isa = ctypes.c_void_p()
    assert library.softxent_isa_select(_kernels.isa_in_use().encode(), ctypes.byref(isa)) == 0
    labels, loss, grad = labels.astype(np.int64), np.empty(n, dtype), np.empty_like(z)
    parts, bounds = np.empty((2, n, 4), dtype), np.linspace(0, n_classes, n_parts + 1).astype(int)

    def call(name, part, **more):
        begin, end = bounds[part], bounds[part + 1]
        b = Block(size=ctypes.sizeof(Block), n_samples=n, n_classes=end - begin, grad_scale=1.0, isa=isa.value)
        b.options = ctypes.addressof(o)
        b.logits, b.logits_sample_stride, b.logits_class_stride = z[:, begin:].ctypes.data, n_classes, 1
        b.labels, b.labels_stride, b.label_type = labels.ctypes.data, 1, 3
        b.loss, b.loss_stride = loss.ctypes.data if part == 0 else None, 1
        b.out, b.out_sample_stride, b.out_class_stride = grad[:, begin:].ctypes.data, n_classes, 1
        b.first_class, b.all_classes, b.parts = begin, n_classes, parts[0].ctypes.data
        for key, value in more.items():
            setattr(b, key, value)
        bad = [] if name == "merge" else [None]
        assert getattr(library, f"softxent_{name}_{suffix}")(ctypes.byref(b), *bad) == 0

    filled = [part for part in range(n_parts) if bounds[part] < bounds[part + 1]]
    for part in filled:
        call("begin", part, parts=parts[int(part != filled[0])].ctypes.data)
        if part != filled[0]:
            call("merge", part, other_parts=parts[1].ctypes.data)
    for part in filled:
        call("finish", part, loss=loss.ctypes.data)
    return loss, grad


# ----------------------------------------------------------------------------------------------------------------------
# What the library says.


OF_EXACT = ("entropy", "entropy_and_grad", "kl_divergence", "kl_divergence_and_grad")  # which exact.py has the truth of
NONE = {"reduction": "none"}


def answer(operation, z, labels, v, options):
    """What the library computes, and to which of the exact answers it belongs."""
    of_family = {key: options[key] for key in ("where", "temperature") if key in options}
    if operation in ("softmax", "log_softmax", "logsumexp"):
        return operation, getattr(softxent, operation)(z, **of_family)
    if operation in OF_EXACT:
        arguments, of_value = (z,), {name: x for name, x in options.items() if name != "grad_output"}
        if operation.startswith("kl"):
            arguments, options, of_value = (z, labels), options | NONE, of_value | NONE
        value, grad = getattr(softxent, operation.removesuffix("_and_grad") + "_and_grad")(*arguments, **options)
        if operation.endswith("grad"):
            return "grad", grad
        np.testing.assert_array_equal(value, getattr(softxent, operation)(*arguments, **of_value))
        return "value", value
    if operation == "temperature's derivative":
        return "temperature_grad", softxent.cross_entropy_and_grad(
            z, labels, reduction="none", wrt_temperature=True, **options
        )[2]
    if operation == "loss":
        return "loss", softxent.cross_entropy(z, labels, reduction="none", **options)
    if operation == "gradient":
        return "grad", softxent.cross_entropy_and_grad(z, labels, reduction="none", **options)[1]
    if operation.startswith("Hessian"):
        kind = operation.split()[-1]
        return "hess", softxent.cross_entropy_grad_hess(z, labels, kind=kind, reduction="none", **options)[2]
    if operation == "cross_entropy_hvp":
        return "hvp", softxent.cross_entropy_hvp(z, labels, v, reduction="none", **options)
    if operation == "softmax_jvp, softmax_vjp":
        product = softxent.softmax_jvp(z, v, **options)
        np.testing.assert_array_equal(product, softxent.softmax_vjp(z, v, **options))
        return "jvp", product
    if operation in ("log_softmax_jvp", "log_softmax_vjp"):
        return operation.replace("softmax_", ""), getattr(softxent, operation)(z, v, **options)
    if operation == "softmax_jacobian":
        return "jacobian", softxent.softmax_jacobian(z)
    loss, grad = from_parts(z, labels, options)
    return ("loss", loss) if operation.startswith("loss") else ("grad", grad)


def truth_of(operation, numbers, n_classes, allowed):
    """The exact answers. For the Hessian's diagonal, by the convention that is asked for."""
    high, low = numbers.high, numbers.low
    if operation.endswith("xgboost"):
        floored = allowed & (2 * high < 1e-16)
        return Numbers(high=np.where(floored, 1e-16, 2 * high), low=np.where(floored, 0, 2 * low))
    if operation.endswith("lightgbm"):
        kind = Fraction(n_classes, n_classes - 1)
        exactly = [
            [(Fraction(h) + Fraction(x)) * kind for h, x in zip(*r, strict=True)] for r in zip(high, low, strict=True)
        ]
        rounded = np.array([[float(x) for x in row] for row in exactly])
        rest = [[float(x - Fraction(y)) for x, y in zip(*r, strict=True)] for r in zip(exactly, rounded, strict=True)]
        return Numbers(high=rounded, low=np.array(rest))
    return numbers


def names_of(bound, name, sizes):
    """The meaning of the names for an operation where it differs from their meaning for a loss."""
    names = dict(sizes)
    if name == "log_softmax":
        names["lead"] = sizes["lead_of_log_p"]
    if name == "logsumexp":
        names["lead"] = sizes["largest_lead"]
    if name == "hess":
        names["d"] = sizes["d_of_hess"]
    if name in ("jvp", "log_jvp", "temperature_grad"):
        names["w"] = sizes["w_of_T"]
    if name == "log_vjp":
        names |= {"P": sizes["P_of_g"], "Q": sizes["Q_of_g"], "d": sizes["d_of_hess"]}
    return names


def errors(bound, case, n_classes, dtype):
    """The error of each result as a share of its bound, and relative in eps, for the instruction set in use."""
    find = exact_of_softmax if bound.operation in OF_EXACT else exact
    given, answers, sizes = find(tuple(sorted(case.items(), key=str)), n_classes, dtype)
    name, got = answer(bound.operation, *given)
    truth = truth_of(bound.operation, answers[name], n_classes, sizes["allowed"])
    got = got.astype(np.float64).reshape(truth.high.shape)
    names, info, size = names_of(bound, name, sizes), np.finfo(dtype), np.abs(truth.high)
    eps, smallest, largest = float(info.eps), float(info.tiny), float(info.max)
    factor = names["factors"][name] if "factors" in names else 1
    names |= {"x": np.where(np.isfinite(size), size, 0) / factor, "eps": eps}
    flushed = smallest * (names["scale"] if "scale" in names else np.maximum(1, factor * names["w"]))
    if name in ("hvp", "jvp", "log_jvp"):
        flushed = flushed * (1 + names["v"] + names["mean"])
    # Results that must be infinite are, and results beyond the range of the dtype may be.
    beyond = np.isinf(got) & (size > largest) & (np.sign(got) == np.sign(truth.high))
    error = np.where(beyond, 0, np.abs(truth.distance(got)))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where((size > 4 * flushed / eps) & ~beyond, error / size / eps, 0)
    return error / (factor * eps * eval(bound.bound, {}, names) + flushed), relative


def worst(bound, dtype):
    """The largest error over all cases and numbers of classes: as a share of its bound, in eps, and where it is."""
    share, relative, where = 0.0, 0.0, None
    for case in bound.cases:
        for n_classes in bound.n_classes:
            in_bounds, in_eps = errors(bound, case, n_classes, dtype)
            if not in_bounds.max() <= share:  # true for nan too
                share, where = (
                    float(in_bounds.max()),
                    (case, n_classes, np.argwhere(in_bounds == in_bounds.max())[:1].tolist()),
                )
            relative = max(relative, float(in_eps.max()))
    return share, relative, where


def line(bound):
    """The line of a bound in the page's table, without the measured figures."""
    return f"| {bound.operation} | {bound.options} | `{bound.bound}` |"


if __name__ == "__main__":

    def measured(bound):
        cells = []
        for dtype in DTYPES:
            found = []
            for isa in _kernels.usable_isas():
                _kernels.use_isa(isa)
                found.append((*worst(bound, dtype), isa))
            share, where, isa = max((s, str(w), i) for s, _, w, i in found)
            cells.append(f" {max(r for _, r, _, _ in found):.3g} | {share:.0%} |")
            print(bound.operation, bound.options, dtype.__name__, share, where, isa, file=sys.stderr, flush=True)
        return line(bound) + "".join(cells)

    with ProcessPoolExecutor(2) as pool:
        for row in pool.map(measured, BOUNDS):
            print(row, flush=True)
