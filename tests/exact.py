"""What the entropy and the divergence of a sample are exactly, and how near to that they must be.

The truth is mpmath's, with 120 digits, of the numbers as they are given: softxent.reference has no part in it. Classes
with the same numbers are counted, and computed once, so that a row of 100000 classes with few numbers costs little.

A bound is an expression, in eps, in numbers of the exact answer. bounds.py lists them, and says more of what they mean:

    x            the size of the exact result
    p, w, depth  of a class: its probability; 1 / T; (m - z) / T
    spread       of an entropy: the sum of (1 + d) times its terms -p log p, with the depth d, at the largest the lead
    mean         of an entropy: the mean of depth (1 + depth) over p
    depths       of a divergence from a teacher: the depths of both
    e            what log(t / p) may be off
    terms        of a divergence: the sum of (2 + depths) times its terms
    slope, curve the sums of |t - p| e and of (t + p) e^2
    P, Q         p sum(t) / T and t / T
"""

from __future__ import annotations

from dataclasses import dataclass

import mpmath as mp
import numpy as np

DIGITS = 120

ENTROPY = "4 * spread"
ENTROPY_GRAD = "(4 * (1 + depth) + 2) * w * p * (depth + mean)"
DIVERGENCE = "4 * terms + slope + eps * curve"
GRAD_FROM_PROBABILITIES = "(4 * (1 + depth) + 2) * P + 3 * Q"
GRAD_FROM_TEACHER = "(8 * (1 + depths) + 2) * x + w * p * e"


@dataclass(frozen=True)
class Exact:
    """A sample's value and gradient, their bounds, and the numbers that these are made of."""

    value: mp.mpf
    high: np.ndarray  # the gradient is high + low
    low: np.ndarray
    sizes: dict[str, float | np.ndarray]
    formula: str
    grad_formula: str
    eps: float
    tiny: float  # the smallest normal number: what is below it may be anything

    def bound_by(self, formula, size):
        return self.eps * eval(formula, {}, self.sizes | {"x": size, "eps": self.eps}) + self.tiny

    @property
    def bound(self):
        """Of the value."""
        return self.bound_by(self.formula, float(self.value))

    def error(self, got):
        """Of a value, over its bound."""
        with mp.workdps(DIGITS):
            return float(abs(mp.mpf(float(got)) - self.value) / self.bound)

    def grad_error(self, got):
        """Of the gradient's worst entry, over its bound."""
        error = np.abs((got.astype(np.float64) - self.high) - self.low)
        return float(np.max(error / self.bound_by(self.grad_formula, np.abs(self.high))))


def made_exact(value, grad, sizes, inverse, formulas, dtype):
    """Of the distinct numbers of a sample, and which of them each class has."""
    info = np.finfo(dtype)
    high = np.array([float(g) for g in grad])
    low = np.array([float(g - h) for g, h in zip(grad, map(mp.mpf, high.tolist()), strict=True)])
    of_classes = {name: np.array([float(x) for x in s])[inverse] for name, s in sizes.items() if isinstance(s, list)}
    sizes = {name: float(s) for name, s in sizes.items() if name not in of_classes} | of_classes
    return Exact(value, high[inverse], low[inverse], sizes, *formulas, float(info.eps), float(info.tiny))


class Softmax:
    """The softmax of a row, of its distinct numbers, each of which `counts` classes have. -inf is no class."""

    def __init__(self, values, counts, temperature):
        z = [mp.mpf(float(x)) for x in values]
        largest = max(z)
        self.depth = [(largest - x) / mp.mpf(float(temperature)) for x in z]  # a difference is exact
        exps = [mp.exp(-d) for d in self.depth]
        # What there is beside one maximum may be smaller than the digits show.
        n_max = sum(n for n, d in zip(counts, self.depth, strict=True) if d == 0)
        below = mp.fsum(n * e for n, d, e in zip(counts, self.depth, exps, strict=True) if d > 0)
        self.rest = n_max - 1 + below
        self.log_sum = mp.log1p(self.rest)
        self.p = [e / (1 + self.rest) for e in exps]
        self.minus_log_p = [d + self.log_sum for d in self.depth]
        others = [d for d, n in zip(self.depth, counts, strict=True) if d > 0 or n > 1]
        self.lead = min(others, default=mp.mpf(0))


def entropy(z, temperature=1.0):
    """Of logits, as their dtype holds them."""
    values, inverse, counts = np.unique(z, return_inverse=True, return_counts=True)
    T, counts = float(temperature), counts.tolist()
    with mp.workdps(DIGITS):
        softmax = Softmax(values, counts, T)
        p, depth = softmax.p, softmax.depth
        terms = [a * b for a, b in zip(p, softmax.minus_log_p, strict=True)]
        value = mp.fsum(n * x for n, x in zip(counts, terms, strict=True))
        # A term's own bound is that of its probability; where it is the largest, of what it leaves to the others.
        far = [d if d > 0 else softmax.lead for d in depth]
        spread = mp.fsum(n * x * (1 + s) for n, x, s in zip(counts, terms, far, strict=True))
        # How far -log p lies above its mean is how far the depth does.
        from_mean = mp.fsum(n * a * d for n, a, d in zip(counts, p, depth, strict=True))
        grad = [a * (d - from_mean) / T for a, d in zip(p, depth, strict=True)]
        mean = mp.fsum(n * a * d * (1 + d) for n, a, d in zip(counts, p, depth, strict=True))
        sizes = {"p": p, "depth": depth, "spread": spread, "mean": mean, "w": 1 / T}
        return made_exact(value, grad, sizes, inverse.reshape(-1), (ENTROPY, ENTROPY_GRAD), z.dtype)


def line_above(x):
    """exp(-x) - 1 + x."""
    return x**2 / 2 if abs(x) < mp.mpf(10) ** -30 else mp.exp(-x) - 1 + x


def divergence(z, target, temperature=1.0, target_logits=False):
    """Of logits from a target, as their dtypes hold them."""
    pairs, inverse, counts = np.unique(
        np.stack([z.astype(np.float64), target.astype(np.float64)]), axis=1, return_inverse=True, return_counts=True
    )
    T, counts = mp.mpf(float(temperature)), counts.tolist()
    with mp.workdps(DIGITS):
        student = Softmax(pairs[0], counts, T)
        if target_logits:
            teacher = Softmax(pairs[1], counts, T)
            t, log_t, depth_t = teacher.p, [-x for x in teacher.minus_log_p], teacher.depth
        else:
            t = [mp.mpf(x) for x in pairs[1].tolist()]
            log_t, depth_t = [mp.log(x) if x else mp.mpf(0) for x in t], [mp.mpf(0)] * len(t)
        p = student.p
        x = [a + b for a, b in zip(log_t, student.minus_log_p, strict=True)]
        total = mp.fsum(n * a for n, a in zip(counts, t, strict=True))
        terms = [a * line_above(c) if a else b for a, b, c in zip(t, p, x, strict=True)]
        value = mp.fsum(n * a for n, a in zip(counts, terms, strict=True))
        less = [-b * mp.expm1(c) if target_logits else b * total - a for a, b, c in zip(t, p, x, strict=True)]
        grad = [a / T for a in less]
        depths = [a + b for a, b in zip(depth_t, student.depth, strict=True)]
        if target_logits:
            # Only differences of logits enter x: it is as exact as they are.
            mean = mp.fsum(
                n * (a + b) * abs(c) * (1 + d) for n, a, b, c, d in zip(counts, t, p, x, depths, strict=True)
            )
            of_tops = abs(teacher.log_sum - student.log_sum)  # what the differences are counted from
            e = [4 * (abs(c) + mean + of_tops) for c in x]
        else:
            # The target's own rounding, and that of two logarithms, is in x.
            e = [2 + 2 * abs(a) + 4 * b for a, b in zip(log_t, student.minus_log_p, strict=True)]
        sizes = {"p": p, "w": 1 / T, "e": e, "depth": student.depth, "depths": depths}
        sizes["terms"] = mp.fsum(n * (2 + d) * term for n, d, term in zip(counts, depths, terms, strict=True))
        sizes["slope"] = mp.fsum(n * abs(a - b if a else 0) * c for n, a, b, c in zip(counts, t, p, e, strict=True))
        sizes["curve"] = mp.fsum(n * (a + b) * c**2 for n, a, b, c in zip(counts, t, p, e, strict=True) if a)
        sizes |= {"P": [b * total / T for b in p], "Q": [a / T for a in t]}
        formulas = (DIVERGENCE, GRAD_FROM_TEACHER if target_logits else GRAD_FROM_PROBABILITIES)
        return made_exact(value, grad, sizes, inverse.reshape(-1), formulas, z.dtype)
