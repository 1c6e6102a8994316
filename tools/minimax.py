"""Where the polynomials of exp.h come from: coefficients by Remez exchange, in mpmath.

Run ``python tools/minimax.py``. For each polynomial it prints the coefficients, rounded to the type that uses
them. It also prints the largest relative error of the rounded polynomial, evaluated exactly, and the argument of
that error. The errors of the evaluation in C come on top of it: cext/tests/test_accuracy.h holds those.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 60
Real = Callable[[mp.mpf], mp.mpf]


def remez(f: Real, weight: Real, degree: int, low: mp.mpf, high: mp.mpf, rounds: int = 12) -> list[mp.mpf]:
    """The polynomial q that minimises max |weight (q - f)| on [low, high]."""
    n = degree + 2
    nodes = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * k / (n - 1)) for k in range(n)]
    for _ in range(rounds):
        system = mp.matrix(n, n)
        right = mp.matrix(n, 1)
        for i, x in enumerate(nodes):
            for j in range(degree + 1):
                system[i, j] = x**j
            system[i, degree + 1] = (-1) ** i / weight(x)
            right[i] = f(x)
        coefficients = list(mp.lu_solve(system, right))[: degree + 1]
        nodes = extrema(lambda x, c=coefficients: weight(x) * (horner(c, x) - f(x)), low, high, n)
    return coefficients


def extrema(error: Real, low: mp.mpf, high: mp.mpf, n: int) -> list[mp.mpf]:
    """The n alternating extrema of error: the best of a fine grid between its changes of sign."""
    grid = [low + (high - low) * mp.mpf(k) / (40 * n) for k in range(40 * n + 1)]
    found: list[tuple[mp.mpf, mp.mpf]] = []
    for x in grid:
        e = error(x)
        if found and mp.sign(e) == mp.sign(found[-1][1]):
            if abs(e) > abs(found[-1][1]):
                found[-1] = (x, e)
        else:
            found.append((x, e))
    while len(found) > n:
        found.pop(0 if abs(found[0][1]) < abs(found[-1][1]) else -1)
    if len(found) < n:
        raise ArithmeticError(f"{len(found)} extrema where {n} are needed")
    return [x for x, _ in found]


def horner(coefficients: list[mp.mpf], x: mp.mpf) -> mp.mpf:
    value = mp.mpf(0)
    for c in reversed(coefficients):
        value = value * x + c
    return value


def rounded(coefficients: list[mp.mpf], dtype: type) -> list[mp.mpf]:
    return [mp.mpf(float(dtype(mp.nstr(c, 40)))) for c in coefficients]


def report(name: str, whole: Callable[[list[mp.mpf], mp.mpf], mp.mpf], exact: Real, c, low, high, dtype) -> None:
    eps = mp.mpf(float(np.finfo(dtype).eps))
    grid = [low + (high - low) * (mp.mpf(k) + 0.5) / 4000 for k in range(4000)]
    worst, where = max((abs(whole(c, x) / exact(x) - 1), x) for x in grid if x != 0)
    print(f"{name}: relative error {mp.nstr(worst, 3)} = {mp.nstr(worst / eps, 3)} eps at {mp.nstr(where, 6)}")
    for k, value in enumerate(c):
        print(f"    c{k} = {float(value).hex()}  {mp.nstr(value, 20)}")


def expm1_tail(x: mp.mpf) -> mp.mpf:
    """(exp(x) - 1 - x) / x^2: the part of exp that the polynomial approximates."""
    if abs(x) < mp.mpf(10) ** -12:
        return mp.mpf(1) / 2 + x / 6
    return (mp.expm1(x) - x) / x**2


def log1p_tail(w: mp.mpf) -> mp.mpf:
    """(log(1 + f) - 2 s) / s as a function of w = s^2, s = f / (2 + f): 2 (atanh(s) - s) / s, over w."""
    if w < mp.mpf(10) ** -24:
        return mp.mpf(2) / 3
    s = mp.sqrt(w)
    return 2 * (mp.atanh(s) - s) / (s * w)


def main() -> None:
    half = mp.log(2) / 2 * (1 + mp.mpf(2) ** -10)  # a little wider, because n comes from a rounded product
    for dtype, degree in ((np.float32, 4), (np.float64, 9)):
        c = remez(expm1_tail, lambda x: x**2 / mp.exp(x) + mp.mpf(10) ** -30, degree, -half, half)
        report(
            f"exp, {dtype.__name__}: 1 + r + r^2 q(r), q of degree {degree}",
            lambda c, x: 1 + x + x**2 * horner(c, x),
            mp.exp,
            rounded(c, dtype),
            -half,
            half,
            dtype,
        )
    top = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1) * (1 + mp.mpf(2) ** -10)
    for dtype, degree in ((np.float32, 2), (np.float64, 6)):
        c = remez(log1p_tail, lambda w: w + mp.mpf(10) ** -30, degree, mp.mpf(0), top**2)
        report(
            f"log1p, {dtype.__name__}: 2 s + s w q(w), w = s^2, q of degree {degree}",
            lambda c, s: 2 * s + s * s**2 * horner(c, s**2),
            lambda s: 2 * mp.atanh(s),
            rounded(c, dtype),
            mp.mpf(10) ** -6,
            top,
            dtype,
        )


if __name__ == "__main__":
    main()
