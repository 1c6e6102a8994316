"""What is measured of blocks of samples, one block after the other: the mean loss and its error, ranks, calibration."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .files import Array

Floats = NDArray[np.float64]

N_BINS = 15


class Losses:
    """The sum of the losses, and their variance about the mean.

    Each loss `l` with weight `w` (that of its class, or 1) is given as the product. The mean is `sum(w l) / sum(w)`.
    Its standard error is that of a ratio of independent samples: W. Cochran, *Sampling Techniques* (Wiley, 1977),
    section 6.4. Without weights it is the standard deviation over `sqrt(n)`.
    """

    def __init__(self) -> None:
        self.n = 0
        self._sums: list[float] = []
        self._mean: Floats = np.zeros(2)  # sums of losses and of weights
        self._moments: Floats = np.zeros((2, 2))  # sums of products of their deviations from the mean

    def add(self, losses: Array, weights: Array | None) -> None:
        """Add the losses of samples that are not ignored."""
        if losses.size == 0:
            return
        values = np.ones((2, losses.size))
        values[0] = losses.reshape(-1)
        if weights is not None:
            values[1] = weights.reshape(-1)
        self._sums.append(float(values[0].sum()))
        with np.errstate(invalid="ignore"):  # there is no standard error with infinite losses
            mean = values.mean(axis=1)
            values -= mean[:, np.newaxis]
            apart, n = mean - self._mean, self.n + losses.size
            self._moments += values @ values.T + np.outer(apart, apart) * (self.n * losses.size / n)
            self._mean += apart * (losses.size / n)
        self.n = n

    def mean(self, normalizer: float) -> float:
        return self._sum() / normalizer if normalizer > 0 else math.nan

    def standard_error(self, normalizer: float) -> float:
        total = self._sum()
        if self.n < 2 or not normalizer > 0 or not math.isfinite(total):
            return math.nan
        ratio = np.array([1.0, -total / normalizer])
        variance = float(ratio @ self._moments @ ratio) * self.n / (self.n - 1)
        return math.sqrt(max(variance, 0.0)) / normalizer

    def _sum(self) -> float:
        """The exact sum of the blocks' sums, rounded once. If it is not finite, the result of plain addition."""
        try:
            return math.fsum(self._sums)
        except (OverflowError, ValueError):
            return sum(self._sums)


class Calibration:
    """How often the first class is right, and its probability, in bins of that probability.

    The expected calibration error is the mean of the difference over the samples, bin by bin: C. Guo et al., *On
    Calibration of Modern Neural Networks* (ICML 2017), equation 3. The 15 bins are those of the paper, closed on the
    right.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(N_BINS, dtype=np.int64)
        self.right = np.zeros(N_BINS, dtype=np.int64)
        self.confidence = np.zeros(N_BINS)

    def add(self, losses_of_top: Array, is_right: Array) -> None:
        """Add samples by the loss of their first class, which is `-log` of its probability."""
        known = ~np.isnan(losses_of_top)
        confidence = np.exp(-losses_of_top[known].astype(np.float64))
        bins = np.clip(np.ceil(confidence * N_BINS).astype(np.intp) - 1, 0, N_BINS - 1)
        self.counts += np.bincount(bins, minlength=N_BINS)
        self.right += np.bincount(bins[is_right[known]], minlength=N_BINS)
        self.confidence += np.bincount(bins, weights=confidence, minlength=N_BINS)

    def error(self) -> float:
        n = int(self.counts.sum())
        return float(np.abs(self.right - self.confidence).sum()) / n if n else math.nan
