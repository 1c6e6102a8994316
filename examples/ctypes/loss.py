"""The C library by way of ctypes: the struct is declared here, the functions are in the extension module."""

import ctypes

import numpy as np

import softxent._kernels

library = ctypes.CDLL(softxent._kernels.__file__)
library.softxent_strerror.restype = ctypes.c_char_p


def field(names, kind):
    return [(name, kind) for name in names.split()]


class Block(ctypes.Structure):
    """softxent_block, as softxent.h has it."""

    _fields_ = (
        field("size", ctypes.c_size_t)
        + field("isa options", ctypes.c_void_p)
        + field("n_samples n_classes", ctypes.c_ssize_t)
        + field("logits", ctypes.c_void_p)
        + field("logits_sample_stride logits_class_stride", ctypes.c_ssize_t)
        + field("logits_type", ctypes.c_int)
        + field("labels", ctypes.c_void_p)
        + field("labels_stride", ctypes.c_ssize_t)
        + field("label_type use_ignore_index", ctypes.c_int)
        + field("ignore_index", ctypes.c_int64)
        + field("target", ctypes.c_void_p)
        + field("target_sample_stride target_class_stride", ctypes.c_ssize_t)
        + field("target_type", ctypes.c_int)
        + field("where", ctypes.c_void_p)
        + field("where_sample_stride where_class_stride", ctypes.c_ssize_t)
        + field("sample_weight", ctypes.c_void_p)
        + field("sample_weight_stride", ctypes.c_ssize_t)
        + field("direction", ctypes.c_void_p)
        + field("direction_sample_stride direction_class_stride", ctypes.c_ssize_t)
        + field("direction_type", ctypes.c_int)
        + field("loss", ctypes.c_void_p)
        + field("loss_stride", ctypes.c_ssize_t)
        + field("loss_type", ctypes.c_int)
        + field("out", ctypes.c_void_p)
        + field("out_sample_stride out_class_stride out_row_stride", ctypes.c_ssize_t)
        + field("out_type accumulate", ctypes.c_int)
        + field("hess", ctypes.c_void_p)
        + field("hess_sample_stride hess_class_stride", ctypes.c_ssize_t)
        + field("hess_kind", ctypes.c_int)
        + field("grad_scale", ctypes.c_double)
        + field("grad_output", ctypes.c_void_p)
        + field("grad_output_stride", ctypes.c_ssize_t)
        + field("parts other_parts", ctypes.c_void_p)
        + field("first_class all_classes", ctypes.c_ssize_t)
    )


def loss_and_grad(logits, labels):
    """Losses and their gradient, of float64 logits (n, C) and int64 labels (n,)."""
    loss, grad = np.empty(len(logits)), np.empty_like(logits)
    b = Block(size=ctypes.sizeof(Block), n_samples=len(logits), n_classes=logits.shape[1], grad_scale=1.0)
    b.logits, b.logits_sample_stride, b.logits_class_stride = logits.ctypes.data, logits.shape[1], 1
    b.labels, b.labels_stride, b.label_type = labels.ctypes.data, 1, 3
    b.loss, b.loss_stride = loss.ctypes.data, 1
    b.out, b.out_sample_stride, b.out_class_stride = grad.ctypes.data, logits.shape[1], 1
    if status := library.softxent_cross_entropy_f64(ctypes.byref(b), None):
        raise ValueError(library.softxent_strerror(status).decode())
    return loss, grad


if __name__ == "__main__":
    random = np.random.default_rng(0)
    logits, labels = random.standard_normal((100, 10)), random.integers(0, 10, 100)
    loss, grad = loss_and_grad(logits, labels)
    expected, expected_grad = softxent.cross_entropy_and_grad(logits, labels, reduction="sum")
    assert loss.sum() == expected or abs(loss.sum() - expected) < 1e-12 * expected
    assert (grad == expected_grad).all()
    try:
        loss_and_grad(logits, labels + 1)
    except ValueError as error:
        print(f"mean loss {loss.mean():.6f}; refused: {error}")
