"""What the entropy and the divergence of a sample are exactly, and how near to that they must be.

The truth is mpmath's, with 120 digits, of the numbers as they are given: softxent.reference has no part in it. Classes
with the same numbers are counted, and computed once, so that a row of 100000 classes with few numbers costs little.
"""

from __future__ import annotations

from dataclasses import dataclass

import mpmath as mp
import numpy as np

DIGITS = 120


@dataclass(frozen=True)
class Exact:
    """A sample's value and gradient, each with its bound, and how to compare with them."""

    value: mp.mpf
    bound: float
    high: np.ndarray  # the gradient is high + low
    low: np.ndarray
    grad_bound: np.ndarray

    def error(self, got):
        """Of a value, over its bound."""
        with mp.workdps(DIGITS):
            return float(abs(mp.mpf(float(got)) - self.value) / self.bound)

    def grad_error(self, got):
        """Of the gradient's worst entry, over its bound."""
        return float(np.max(np.abs((got.astype(np.float64) - self.high) - self.low) / self.grad_bound))


def made_exact(value, bound, grad, grad_bound, inverse, dtype):
    """With bounds in numbers of eps; what is below the smallest normal number, or mpmath's digits, may be anything."""
    eps, tiny = float(np.finfo(dtype).eps), max(float(np.finfo(dtype).tiny), 10.0 ** (20 - DIGITS))
    high = np.array([float(g) for g in grad])
    low = np.array([float(g - h) for g, h in zip(grad, map(mp.mpf, high.tolist()), strict=True)])
    grad_bound = np.array([float(b) * eps + tiny for b in grad_bound])
    return Exact(value, float(bound) * eps + tiny, high[inverse], low[inverse], grad_bound[inverse])


class Softmax:
    """The softmax of a row, of its distinct numbers, each of which `counts` classes have. -inf is no class."""

    def __init__(self, values, counts, temperature):
        z = [mp.mpf(float(x)) / mp.mpf(float(temperature)) for x in values]
        largest = max(z)
        self.depth = [largest - x for x in z]
        exps = [mp.exp(-d) for d in self.depth]
        self.total = total = mp.fsum(n * e for n, e in zip(counts, exps, strict=True))
        self.p = [e / total for e in exps]
        self.minus_log_p = [d + mp.log(total) for d in self.depth]
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
        spread = [d if d > 0 else softmax.lead for d in depth]
        scaled = 2 if T != 1 else 0
        bound = mp.fsum(n * x * (4 * (1 + s) + scaled) for n, x, s in zip(counts, terms, spread, strict=True))
        # How far -log p lies above its mean is how far the depth does.
        from_mean = mp.fsum(n * a * d for n, a, d in zip(counts, p, depth, strict=True))
        grad = [a * (d - from_mean) / T for a, d in zip(p, depth, strict=True)]
        mean = mp.fsum(n * a * d * (1 + d) for n, a, d in zip(counts, p, depth, strict=True))
        grad_bound = [(4 * (1 + d) + 2 + scaled) * a * (d + mean) / T for a, d in zip(p, depth, strict=True)]
        return made_exact(value, bound, grad, grad_bound, inverse.reshape(-1), z.dtype)


def line_above(x):
    """exp(-x) - 1 + x."""
    return mp.exp(-x) - 1 + x


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
        grad = [(b * total - a) / T for a, b in zip(t, p, strict=True)]
        depth = [1 + a + b for a, b in zip(depth_t, student.depth, strict=True)]
        if target_logits:
            # Only differences of logits enter x: it is as exact as they are.
            mean = mp.fsum(n * (a + b) * abs(c) * d for n, a, b, c, d in zip(counts, t, p, x, depth, strict=True))
            of_tops = abs(mp.log(teacher.total / student.total))  # what the differences are counted from
            dx = [4 * (abs(c) + mean + of_tops) for c in x]
            grad_bound = [((8 * d + 2) * abs(g) * T + b * e) / T for b, g, d, e in zip(p, grad, depth, dx, strict=True)]
        else:
            # The target's own rounding, and that of two logarithms, is in x.
            dx = [2 + 2 * abs(a) + 4 * b for a, b in zip(log_t, student.minus_log_p, strict=True)]
            grad_bound = [((4 * d + 2) * b * total + 3 * a) / T for a, b, d in zip(t, p, depth, strict=True)]
        eps = float(np.finfo(z.dtype).eps)
        first = mp.fsum(
            n * ((4 * d + 4) * term + abs(a - b if a else 0) * e)
            for n, a, b, d, e, term in zip(counts, t, p, depth, dx, terms, strict=True)
        )
        second = mp.fsum(n * (a + b) * e**2 for n, a, b, e in zip(counts, t, p, dx, strict=True) if a)
        return made_exact(value, first + second * eps, grad, grad_bound, inverse.reshape(-1), z.dtype)
