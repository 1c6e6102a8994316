"""The functions that take logits, labels and the options of a loss: of the library, and of the reference."""

import numpy as np

import softxent
from softxent import reference


def losses_of(module):
    return {
        "loss": module.cross_entropy,
        "loss and grad": module.cross_entropy_and_grad,
        "rank": module.cross_entropy_and_rank,
        "grad and hess": module.cross_entropy_grad_hess,
        "hvp": lambda z, y, **options: module.cross_entropy_hvp(z, y, np.ones(np.shape(z)), **options),
    }


LOSSES, REFERENCES = losses_of(softxent), losses_of(reference)
