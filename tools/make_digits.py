"""Where src/softxent/data/digits.npz comes from: the digits that scikit-learn ships, as two uint8 arrays.

Run ``python tools/make_digits.py [FILE.npz]`` with scikit-learn installed. NumPy dates every archive member
1980, so the same zlib writes the same bytes; the digest it prints is of the arrays, the same with any zlib.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

DIGITS = Path(__file__).resolve().parent.parent / "src" / "softxent" / "data" / "digits.npz"


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DIGITS
    images, labels = load_digits(return_X_y=True)
    if images.shape != (1797, 64) or not np.array_equal(images, np.clip(np.rint(images), 0, 16)):
        raise SystemExit("not the digits that were expected: 1797 images of 64 whole numbers, 0 to 16")
    images, labels = images.astype(np.uint8), labels.astype(np.uint8)
    np.savez_compressed(path, images=images, labels=labels)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    print(f"{path}: {path.stat().st_size} bytes, arrays sha256 {digest}")


if __name__ == "__main__":
    main()
