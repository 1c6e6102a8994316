"""The table of refusals, one test for each line.

Each message names the argument, what it was and what to do. Nothing is written.
"""

import functools
import re

import numpy as np
import pytest

import softxent
from losses import LOSSES
from softxent import _kernels, reference
from softxent._options import Options

Z = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 2, 0])


hvp = LOSSES["hvp"]
SEVERAL_AXES = [softxent.softmax, softxent.log_softmax, softxent.logsumexp, softxent.entropy]
FAMILY = [*SEVERAL_AXES, softxent.entropy_and_grad]
PRODUCTS = {
    "jvp": lambda z, *a, **k: softxent.softmax_jvp(z, np.ones(np.shape(z)), *a, **k),
    "vjp": lambda z, *a, **k: softxent.softmax_vjp(z, np.ones(np.shape(z)), *a, **k),
    "log jvp": lambda z, *a, **k: softxent.log_softmax_jvp(z, np.ones(np.shape(z)), *a, **k),
    "log vjp": lambda z, *a, **k: softxent.log_softmax_vjp(z, np.ones(np.shape(z)), *a, **k),
}
JACOBIANS = {**PRODUCTS, "jacobian": softxent.softmax_jacobian}
WITH_WHERE = [*FAMILY, *PRODUCTS.values()]  # and with a temperature


@pytest.fixture(params=[*FAMILY, *JACOBIANS.values()], ids=[*(f.__name__ for f in FAMILY), *JACOBIANS])
def softmaxes(request):
    return request.param


@pytest.mark.parametrize("bad", [-1, 3, -100, 10**6, -(2**31)])
@pytest.mark.parametrize("label_type", [np.int32, np.int64])
def test_a_label_that_is_no_class_is_an_index_error(bad, label_type, call):
    labels = Y.astype(label_type)
    labels[2] = bad
    with pytest.raises(IndexError, match=rf"labels\[2\] is {bad}, which is not a class in \[0, 3\)"):
        call(Z, labels)


def test_the_first_bad_label_is_named_by_its_place_in_the_array(call):
    z, labels = np.zeros((2, 3, 4)), np.zeros((2, 4), np.uint8)
    labels[1, 2] = labels[1, 3] = 255
    with pytest.raises(IndexError, match=r"labels\[1, 2\] is 255, .* in \[0, 3\); ignore_index=255 would leave"):
        call(z, labels, axis=1)
    with pytest.raises(IndexError, match=r"^labels is 7, which is not a class"):
        call(np.zeros(3), 7)


def test_huge_unsigned_labels_do_not_wrap(call):
    labels = np.array([0, 2**64 - 1, 0, 0], np.uint64)
    with pytest.raises(IndexError, match=r"labels\[1\] is 18446744073709551615"):
        call(Z, labels)
    with pytest.raises(IndexError, match=r"labels\[1\]"):
        call(Z, labels, ignore_index=-1)
    with pytest.raises(IndexError, match=r"labels\[1\]"):
        call(Z, labels, ignore_index=-(2**63))


@pytest.mark.parametrize("beyond", [2**64, 2**64 + 1, 2**63 + 1, -(2**63), -(2**63) - 1, 2**200, -(2**200)])
@pytest.mark.parametrize(
    "label_type", [f"{order}{kind}{size}" for order in "<>" for kind in "iu" for size in (1, 2, 4, 8)]
)
def test_a_number_that_no_label_can_hold_ignores_nothing(beyond, label_type, call):
    labels = np.array([0, 1, 2, 1], label_type)
    for options in ({}, {"reduction": "none"}, {"temperature": 2.0}):
        assert_same(call(Z, labels, ignore_index=beyond, **options), call(Z, labels, **options))
    for module in (softxent, reference):
        losses = module.cross_entropy(Z, labels, ignore_index=beyond, reduction="none")
        np.testing.assert_allclose(losses, np.log(np.exp(Z).sum(1)) - Z[np.arange(4), [0, 1, 2, 1]], rtol=1e-12)


@pytest.mark.parametrize("code", ["u1", "u8", ">u2", ">u8", "i1", ">i2"])
@pytest.mark.parametrize("beyond", [-(2**40), 2**65])
def test_such_a_number_is_compared_with_labels_in_any_layout(code, beyond, call):
    """NumPy 2.0 and 2.1 crash in this comparison, except for native labels in C order."""
    values = np.arange(24).reshape(2, 3, 4) % 3
    z, expected = np.zeros((2, 3, 4, 3)) + Z[:, :1], np.log(3)
    for labels in (values, values.T.copy().T, values.transpose(1, 0, 2).copy().transpose(1, 0, 2), values[..., :1]):
        given = np.broadcast_to(labels.astype(code, order="K"), values.shape)
        for module in (softxent, reference):
            assert module.cross_entropy(z, given, ignore_index=beyond) == pytest.approx(expected)
            assert np.all(module.cross_entropy_and_rank(z, given, ignore_index=beyond)[1] == given)
        assert_same(call(z, given, ignore_index=beyond), call(z, given.astype(int)))
        bad = np.array(given, order="K")
        bad[0, 1, 2] = 9
        with pytest.raises(IndexError, match=r"labels\[0, 1, 2\] is 9"):
            call(z, bad, ignore_index=beyond)


def test_ignoring_one_number_does_not_excuse_another(call):
    with pytest.raises(IndexError, match=r"labels\[1\] is -2"):
        call(Z, np.array([-1, -2, 0, 0]), ignore_index=-1)


@pytest.mark.parametrize("labels", [Y.astype(float), Y.astype(np.float16), Y.astype(bool), Y.astype(complex)])
def test_index_labels_must_be_integers(labels, call):
    with pytest.raises(TypeError, match=f"labels .* integer dtype; got {labels.dtype}"):
        call(Z, labels)


@pytest.mark.parametrize("labels", [Y.astype(object), Y.astype(str), None, "0120", [None] * 4, Z.astype(object)])
def test_labels_of_objects_or_strings_are_refused(labels, call):
    with pytest.raises(TypeError, match="labels"):
        call(Z, labels)


@pytest.mark.parametrize("bad", [complex, object, str, "M8[s]", np.longdouble])
def test_logits_and_targets_must_be_real_numbers(bad, call):
    if bad is np.longdouble and np.dtype(bad).itemsize == 8:
        pytest.skip("long double is float64 here")
    array = Z.astype(int).astype(bad)
    with pytest.raises(
        TypeError, match=f"logits must hold real numbers .*; got dtype {array.dtype}".replace("[", r"\[")
    ):
        call(array, Y)
    with pytest.raises(TypeError, match="labels must hold real numbers"):
        call(Z, array)
    for function in (*FAMILY, *JACOBIANS.values()):
        with pytest.raises(TypeError, match="logits must hold real numbers"):
            function(array)


def targets_with(bad, n_samples, n_classes, place, dtype):
    """One-hot targets in which some zeros are -0.0, with one bad entry, and another in a later sample."""
    target = -np.zeros((n_samples, n_classes), dtype)
    target[np.arange(n_samples), np.arange(n_samples) % n_classes] = 1
    target[place] = target[-1, 0] = bad
    return target


@pytest.mark.parametrize("bad", [-1, np.nan, -(2.0**-24)])  # the last is minus float16's smallest
@pytest.mark.parametrize("target_dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize(("n_classes", "place"), [(3, (0, 2)), (64, (17, 0)), (65, (9, 64)), (300, (18, 150))])
def test_a_target_entry_that_is_no_mass_is_named(n_classes, place, dtype, target_dtype, bad, isa, call):
    z = np.linspace(-2, 2, 20 * n_classes).reshape(20, n_classes).astype(dtype)
    target = targets_with(bad, 20, n_classes, place, target_dtype)
    for options in ({}, {"temperature": 2.0, "label_smoothing": 0.1, "n_threads": 2}):
        with pytest.raises(ValueError, match=rf"labels\[{place[0]}, {place[1]}\] is {float(bad)}; "):
            call(z, target, **options)
        with pytest.raises(ValueError, match=rf"labels\[{place[1]}, {place[0]}\] is {float(bad)}; "):
            call(z.T, target.T, axis=0, **options)
    with pytest.raises(ValueError, match=rf"labels\[{place[1]}\] is {float(bad)}; "):
        call(z[place[0]], target[place[0]])


@pytest.mark.parametrize("options", [{}, {"accumulate": True}, {"label_smoothing": 0.1}, {"temperature": 2.0}])
@pytest.mark.parametrize("n_classes", [3, 100])
def test_nothing_is_written_where_a_target_is_bad(n_classes, options, isa):
    z = np.linspace(-2, 2, 20 * n_classes).reshape(20, n_classes)
    target = targets_with(np.nan, 20, n_classes, (18, 1), "f8")
    for out in (np.full_like(z, 7), z):
        before = out.copy()
        with pytest.raises(ValueError, match=r"labels\[18, 1\] is nan"):
            softxent.cross_entropy_and_grad(z, target, out=out, **options)
        np.testing.assert_array_equal(out, before)
    losses = np.full(20, 7.0)
    with pytest.raises(ValueError, match=r"labels\[18, 1\] is nan"):
        softxent.cross_entropy(z, target, reduction="none", out=losses)
    np.testing.assert_array_equal(losses, 7)


@pytest.mark.parametrize("labels", [Y[:3], Y[None], np.zeros((4, 2)), np.zeros((1, 3)), np.zeros((4, 3, 1)), 0])
def test_shapes_that_do_not_fit_are_refused_and_nothing_broadcasts(labels, call):
    with pytest.raises(ValueError, match=r"labels .*\(4,"):
        call(Z, labels)


def test_ragged_lists_are_refused_by_name(call):
    if call is hvp:
        call = functools.partial(softxent.cross_entropy_hvp, v=Z)
    with pytest.raises(ValueError, match="logits must be an array, or lists of one length; got list"):
        call([[1.0, 2.0], [3.0]], [0, 0])
    with pytest.raises(ValueError, match="labels must be an array"):
        call(Z, [[0, 1], [0]])
    for function in (*FAMILY, softxent.softmax_jacobian):
        with pytest.raises(ValueError, match="logits must be an array"):
            function([[1.0, 2.0], [3.0]])
    with pytest.raises(ValueError, match="v must be an array"):
        softxent.softmax_jvp(Z[:2], [[1.0, 2.0], [3.0]])


def test_no_classes_and_no_axes_are_refused(call):
    with pytest.raises(ValueError, match="logits must have at least one class"):
        call(np.zeros((4, 0)), Y)
    with pytest.raises(ValueError, match="logits must have at least one axis"):
        call(np.float64(3), 0)
    for function in (*FAMILY, *JACOBIANS.values()):
        with pytest.raises(ValueError, match="logits must have at least one axis"):
            function(3.0)
        with pytest.raises(ValueError, match="logits must have at least one class"):
            function(np.zeros((4, 0)))


@pytest.mark.parametrize("axis", [2, -3, 100, 2**70])
def test_an_axis_out_of_range_is_an_axis_error(axis, call):
    with pytest.raises(np.exceptions.AxisError, match=f"axis {axis} is out of bounds"):
        call(Z, Y, axis=axis)
    for function in (*FAMILY, *JACOBIANS.values()):
        with pytest.raises(np.exceptions.AxisError, match=f"axis {axis} is out of bounds"):
            function(Z, axis)


@pytest.mark.parametrize("axis", [None, 1.0, -1.0, (0, 1), "1", np.array([-1, -1])])
def test_an_axis_must_be_an_integer(axis, call):
    with pytest.raises(TypeError, match="axis must be an integer"):
        call(Z, Y, axis=axis)
    for function in JACOBIANS.values():
        with pytest.raises(TypeError, match="axis must be an integer"):
            function(Z, axis)


@pytest.mark.parametrize("axis", [1.0, -1.0, "1", np.array([-1, -1]), (0, 1.0), ("0",), [[0]], (None,)])
def test_several_axes_must_be_integers(axis):
    for function in SEVERAL_AXES:
        with pytest.raises(TypeError, match="axis must be an integer, a tuple of integers or None"):
            function(Z, axis)


def test_several_axes_must_be_different_axes_of_the_logits():
    for function in SEVERAL_AXES:
        for axis in ((0, 2), (-3, 1), (2**70,)):
            with pytest.raises(np.exceptions.AxisError, match=r"axis .* is out of bounds"):
                function(Z, axis)
        for axis in ((0, 0), (1, -1), (0, 1, 0)):
            with pytest.raises(ValueError, match=r"axis must .* once; got \("):
                function(Z, axis)
        with pytest.raises(ValueError, match=r"axis must .* at least one.*; got \(\)"):
            function(Z, ())
        with pytest.raises(ValueError, match="logits must have at least one axis"):
            function(3.0, None)
        with pytest.raises(ValueError, match="logits must have at least one class"):
            function(np.zeros((4, 0)), None)


@pytest.mark.parametrize("reduction", ["average", "", None, 3, np.array(["mean"]), np.array(["mean", "sum"])])
def test_an_unknown_reduction_is_refused(reduction, call):
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none'; got"):
        call(Z, Y, reduction=reduction)


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_thread_count_below_one_is_refused(n, error, call):
    with pytest.raises(error, match="n_threads must be"):
        call(Z, Y, n_threads=n)
    for function in (*FAMILY, *JACOBIANS.values()):
        with pytest.raises(error, match="n_threads must be"):
            function(Z, n_threads=n)
    with pytest.raises(error, match="n must be"):
        softxent.set_num_threads(n)


def test_ignore_index_must_be_an_integer_and_goes_with_indices(call):
    with pytest.raises(TypeError, match=r"ignore_index must be an integer; got 1\.5"):
        call(Z, Y, ignore_index=1.5)
    with pytest.raises(ValueError, match="ignore_index needs class indices"):
        call(Z, np.ones_like(Z), ignore_index=0)


def test_unknown_options_are_refused(call):
    with pytest.raises(TypeError, match="unexpected keyword"):
        call(Z, Y, weights=None)
    with pytest.raises(TypeError, match="positional"):
        call(Z, Y, 1)


@pytest.mark.parametrize("name", ["softcap", "z_loss", "grad_output", "accumulate"])
def test_second_derivatives_do_not_take_what_they_are_not_defined_for(name):
    for function in (softxent.cross_entropy_grad_hess, hvp):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            function(Z, Y, **{name: 1.0})


class TestOut:
    """An `out` that is invalid."""

    def test_of_another_shape(self):
        with pytest.raises(ValueError, match=r"out must have the shape of the logits, \(4, 3\); got \(3, 4\)"):
            softxent.cross_entropy_and_grad(Z, Y, out=np.zeros((3, 4)))
        with pytest.raises(ValueError, match=r"out must have the shape of the samples, \(4,\); got \(4, 1\)"):
            softxent.cross_entropy(Z, Y, reduction="none", out=np.zeros((4, 1)))
        with pytest.raises(ValueError, match=r"out must have the shape of the samples, \(4,\)"):
            softxent.logsumexp(Z, out=np.zeros(3))

    def test_of_another_dtype(self):
        with pytest.raises(TypeError, match="out must have dtype float64; got float32"):
            softxent.cross_entropy_and_grad(Z, Y, out=np.zeros((4, 3), np.float32))
        with pytest.raises(TypeError, match="out must be a NumPy array; got list"):
            softxent.softmax(Z, out=[0.0])

    def test_read_only(self):
        out = np.zeros((4, 3))
        out.flags.writeable = False
        for function in (lambda: softxent.cross_entropy_and_grad(Z, Y, out=out), lambda: softxent.softmax(Z, out=out)):
            with pytest.raises(ValueError, match="out is read-only"):
                function()

    @pytest.mark.parametrize("shift", [-1, 1])
    def test_overlapping_the_logits(self, shift):
        buffer = np.arange(15.0)
        z = buffer[1:13].reshape(4, 3)
        out = buffer[1 + shift : 13 + shift].reshape(4, 3)
        before = buffer.copy()
        with pytest.raises(ValueError, match="out overlaps logits in memory"):
            softxent.cross_entropy_and_grad(z, Y, out=out)
        with pytest.raises(ValueError, match="out overlaps logits in memory"):
            softxent.softmax(z, out=out)
        np.testing.assert_array_equal(buffer, before)

    def test_the_logits_backwards(self):
        z = Z.copy()
        with pytest.raises(ValueError, match="out overlaps logits"):
            softxent.cross_entropy_and_grad(z, Y, out=z[::-1])
        with pytest.raises(ValueError, match="out overlaps logits"):
            softxent.cross_entropy_and_grad(z[:3], Y[:3], out=z[:3].T)

    def test_overlapping_the_labels_or_the_upstream_gradient(self):
        memory = np.zeros((4, 3))
        with pytest.raises(ValueError, match="out overlaps labels"):
            softxent.cross_entropy_and_grad(Z, memory, out=memory)
        with pytest.raises(ValueError, match="out overlaps labels"):
            softxent.cross_entropy_and_grad(Z, memory.view(np.int64)[:, 0], out=memory)
        with pytest.raises(ValueError, match="out overlaps grad_output"):
            softxent.cross_entropy_and_grad(Z, Y, reduction="none", grad_output=memory[:, 1], out=memory)

    def test_with_entries_that_share_memory(self):
        memory = np.zeros(2000)
        for strides in ((0, 8), (8, 8), (8, 0), (-8, 8), (0, 800), (800, 0), (0, -800), (16, 24), (800, 1600), (8, 4)):
            out = np.lib.stride_tricks.as_strided(memory[1000:], (4, 3), strides)
            for call in (
                lambda out=out: softxent.cross_entropy_and_grad(Z, Y, out=out),
                lambda out=out: softxent.cross_entropy_hvp(Z, Y, Z, out=out),
                lambda out=out: softxent.softmax(Z, out=out),
                lambda out=out: softxent.softmax(Z.astype(">f8"), out=out),
                lambda out=out: softxent.cross_entropy_grad_hess(Z, Y, out=(None, out)),
            ):
                with pytest.raises(ValueError, match="share their memory"):
                    call()
        with pytest.raises(ValueError, match="share their memory"):
            softxent.logsumexp(Z, out=np.lib.stride_tricks.as_strided(memory, (4,), (0,)))
        assert np.all(memory == 0)

    def test_with_entries_that_are_interleaved_and_share_none(self):
        z = np.arange(12.0).reshape(4, 3)
        expected = softxent.softmax(z)
        for strides in ((24, 32), (8, 32), (-24, 40), (1600, 8)):
            out = np.lib.stride_tricks.as_strided(np.zeros(2000)[1000:], (4, 3), strides)
            np.testing.assert_array_equal(softxent.softmax(z, out=out), expected)

    def test_where_there_are_no_losses_to_write(self):
        with pytest.raises(ValueError, match="out takes the losses of reduction='none'"):
            softxent.cross_entropy(Z, Y, out=np.zeros(4))

    def test_missing_where_it_is_to_be_added_to(self):
        with pytest.raises(ValueError, match="accumulate=True adds to out"):
            softxent.cross_entropy_and_grad(Z, Y, accumulate=True)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_upstream_gradient_of_samples_needs_reduction_none(reduction):
    with pytest.raises(ValueError, match="grad_output must be a number with reduction="):
        softxent.cross_entropy_and_grad(Z, Y, reduction=reduction, grad_output=np.ones(4))


def test_an_upstream_gradient_must_fit():
    with pytest.raises(ValueError, match=r"grad_output must have the samples' shape \(4,\); got \(4, 1\)"):
        softxent.cross_entropy_and_grad(Z, Y, reduction="none", grad_output=np.ones((4, 1)))
    with pytest.raises(TypeError, match="grad_output must hold real numbers"):
        softxent.cross_entropy_and_grad(Z, Y, grad_output=1j)


@pytest.mark.parametrize("n_classes", [3, 100])
@pytest.mark.parametrize("options", [{}, {"accumulate": True}, {"reduction": "none"}, {"ignore_index": 1}])
def test_nothing_is_written_on_an_error(n_classes, options):
    rng = np.random.default_rng(1)
    z, labels = rng.normal(size=(1000, n_classes)), np.zeros(1000, int)
    labels[997] = n_classes
    out, before = np.full_like(z, 7.0), z.copy()
    with pytest.raises(IndexError):
        softxent.cross_entropy_and_grad(z, labels, out=out, **options)
    np.testing.assert_array_equal(out, 7.0)
    with pytest.raises(IndexError):
        softxent.cross_entropy_and_grad(z, labels, out=z, **options)
    np.testing.assert_array_equal(z, before)
    losses = np.full(1000, 7.0)
    with pytest.raises(IndexError):
        softxent.cross_entropy(z, labels, reduction="none", out=losses)
    np.testing.assert_array_equal(losses, 7.0)


# ----------------------------------------------------------------------------------------------------------------------
# Numbers.

INF, NAN = np.inf, np.nan
OUT_OF_RANGE = {
    "label_smoothing": [-0.1, 1.1, -1e-300, np.nextafter(1.0, 2.0), NAN, INF, -INF, 2, True + 1],
    "temperature": [0, 0.0, -0.0, -1, NAN, INF, -INF, 1e-300, 1e300],
    "softcap": [0, 0.0, -0.0, -1, NAN, INF, -INF, 1e-300, 1e300],
    "z_loss": [-1, -1e-300, NAN, INF, -INF],
    "base": [0, 1, 1.0, np.float32(1), True, -2, NAN, INF, -INF],
}
RANGES = {
    "label_smoothing": r"must lie in \[0, 1\]",
    "temperature": "must be positive",
    "softcap": "must be positive",
    "z_loss": "must be at least 0 and finite",
    "base": "must be positive, finite and not 1",
}
assert {*OUT_OF_RANGE} == {*RANGES} == {*Options._fields} - {"class_weight", "sample_weight", "where"}
NOT_NUMBERS = ["0.5", "", b"0.5", 1j, [0.5], (0.5,), np.array([0.5]), np.ones((1, 1)), np.array("0.5"), object(), {}]


def takers(name):
    """The losses that take an option."""
    has_hessian = {"grad and hess", "hvp"} if name in ("softcap", "z_loss") else set()
    return [function for kind, function in LOSSES.items() if kind not in has_hessian]


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, values in OUT_OF_RANGE.items() for v in values])
def test_a_number_out_of_its_range_is_refused(name, value):
    message = f"{name} {RANGES[name]}.*; got {re.escape(str(float(value)))}$"
    for call in takers(name):
        for given in (value, np.array(value), np.float64(value)):
            with pytest.raises(ValueError, match=message):
                call(Z, Y, **{name: given})
    for function in WITH_WHERE if name == "temperature" else []:
        with pytest.raises(ValueError, match=message):
            function(Z, temperature=value)


@pytest.mark.parametrize("name", [*OUT_OF_RANGE, "normalizer"])
@pytest.mark.parametrize("value", [*NOT_NUMBERS, None])
def test_what_is_no_number_is_refused(name, value):
    if value is None and name in ("softcap", "base", "normalizer"):
        return  # None stands for the default
    message = f"^{name} must be a number; got "
    # A loss may have a temperature for each sample, in the samples' shape.
    is_array = name == "temperature" and np.ndim(value) > 0
    for call in takers(name):
        with pytest.raises(ValueError if is_array else TypeError, match=f"^{name} must " if is_array else message):
            call(Z, Y, **{name: value})
    for function in WITH_WHERE if name == "temperature" else []:
        with pytest.raises(TypeError, match=message):
            function(Z, temperature=value)


@pytest.mark.parametrize("name", [*OUT_OF_RANGE, "normalizer"])
def test_numbers_of_every_real_type_are_taken(name):
    for call in takers(name):
        expected = call(Z, Y, **{name: 0.5})
        for given in (np.float64(0.5), np.float32(0.5), np.float16(0.5), np.array(0.5), np.array(0.5, ">f4")):
            assert_same(call(Z, Y, **{name: given}), expected)
        whole = 1 if name == "label_smoothing" else 2
        expected = call(Z, Y, **{name: float(whole)})
        for given in (whole, np.int8(whole), np.uint64(whole), np.array(whole)):
            assert_same(call(Z, Y, **{name: given}), expected)


def assert_same(results, expected, rtol=0.0):
    """Compare the results of two calls that return a number, an array, or several of them."""
    results, expected = ([r] if not isinstance(r, tuple) else r for r in (results, expected))
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, other, rtol=rtol, atol=0)


@pytest.mark.parametrize("kind", ["diagonal", "", "Exact", None, 1, ["exact"], b"exact", np.array(["exact"])])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(ValueError, match="kind must be 'exact', 'xgboost' or 'lightgbm'; got"):
        softxent.cross_entropy_grad_hess(Z, Y, kind=kind)


# ----------------------------------------------------------------------------------------------------------------------
# Arrays.


class TestWeights:
    """Weights that are invalid."""

    @pytest.mark.parametrize("bad", [-1, -1e-300, NAN, INF, -INF])
    def test_of_a_value_that_is_no_weight(self, bad, call):
        for name, place, shape in (("class_weight", (1,), (3,)), ("sample_weight", (2,), (4,))):
            weights = np.ones(shape)
            weights[place] = weights[-1] = bad
            with pytest.raises(ValueError, match=rf"{name} must be .*; {name}\[{place[0]}\] is {bad}"):
                call(Z, Y, **{name: weights})
        weights = np.ones((2, 3))
        weights[1, 0] = bad
        with pytest.raises(ValueError, match=rf"sample_weight\[1, 0\] is {bad}"):
            call(np.zeros((2, 3, 4)), np.zeros((2, 3), int), sample_weight=weights)
        with pytest.raises(ValueError, match=f"sample_weight is {bad}"):
            call(np.zeros(3), 0, sample_weight=bad)

    def test_that_the_logits_dtype_cannot_hold(self, call):
        for name, n in (("class_weight", 3), ("sample_weight", 4)):
            for dtype in (np.float32, np.float16):
                with pytest.raises(ValueError, match=rf"{name} must be non-negative and finite; {name}\[0\] is 1e\+39"):
                    call(Z.astype(dtype), Y, **{name: np.full(n, 1e39)})
            call(Z, Y, **{name: np.full(n, 1e39)})

    @pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 3), (4, 3)])
    def test_of_classes_in_another_shape(self, shape, call):
        with pytest.raises(ValueError, match=r"class_weight must have .* shape \(3,\); got \("):
            call(Z, Y, class_weight=np.ones(shape))

    @pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 1), (1, 4), (4, 3)])
    def test_of_samples_in_another_shape(self, shape, call):
        with pytest.raises(ValueError, match=r"sample_weight must have the samples' shape \(4,\); got \("):
            call(Z, Y, sample_weight=np.ones(shape))

    @pytest.mark.parametrize("code", ["f4", "f8", ">f8", "f2", "i8"])
    def test_that_are_not_aligned_are_taken_all_the_same(self, code, call):
        for name, n in (("class_weight", 3), ("sample_weight", 4)):
            given = np.arange(1, n + 1).astype(code)
            weights = np.frombuffer(b"?" + given.tobytes(), np.uint8)[1:].view(code)
            assert weights.flags.c_contiguous
            assert given.itemsize == 1 or not weights.flags.aligned
            for logits in (Z, Z.astype(np.float32)):
                assert_same(call(logits, Y, **{name: weights}), call(logits, Y, **{name: given}))

    @pytest.mark.parametrize("name", ["class_weight", "sample_weight"])
    @pytest.mark.parametrize("code", [complex, object, str, "M8[s]"])
    def test_of_another_dtype(self, name, code, call):
        weights = np.ones(3 if name == "class_weight" else 4, int).astype(code)
        with pytest.raises(TypeError, match=f"{name} must hold real numbers"):
            call(Z, Y, **{name: weights})


class TestWhere:
    """A `where` that is invalid."""

    @pytest.mark.parametrize("bad", [1, 1.0, "yes", [1, 0, 1], np.ones((4, 3)), np.ones((4, 3), object), [[None] * 3]])
    def test_of_another_dtype_than_bool(self, bad, call):
        with pytest.raises(TypeError, match="where must hold bools, True for the classes that take part; got dtype"):
            call(Z, Y, where=bad)
        for function in WITH_WHERE:
            with pytest.raises(TypeError, match="where must hold bools"):
                function(Z, where=bad)

    @pytest.mark.parametrize("shape", [(4,), (2,), (3, 4), (4, 4), (1, 4, 3), (2, 4, 3), (0,), (0, 3), (4, 3, 1)])
    def test_that_does_not_broadcast(self, shape, call):
        message = rf"where must broadcast to the logits' shape \(4, 3\); got \({shape[0]},"
        with pytest.raises(ValueError, match=message):
            call(Z, Y, where=np.ones(shape, bool))
        for function in WITH_WHERE:
            with pytest.raises(ValueError, match=message):
                function(Z, where=np.ones(shape, bool))

    def test_that_broadcasts_is_taken_whatever_the_class_axis(self, call):
        for axis, labels in ((0, [0, 1, 2]), (1, Y)):
            expected = call(Z, labels, axis=axis)
            for where in (True, np.True_, [True], [[True]], np.ones(3, bool), np.ones((4, 1), bool)):
                assert_same(call(Z, labels, axis=axis, where=where), expected, rtol=1e-13)


class TestDirection:
    """A v or g that is invalid."""

    VECTORS = (
        ("v", lambda v: softxent.cross_entropy_hvp(Z, Y, v)),
        ("v", lambda v: softxent.softmax_jvp(Z, v)),
        ("g", lambda g: softxent.softmax_vjp(Z, g)),
        ("v", lambda v: softxent.log_softmax_jvp(Z, v)),
        ("g", lambda g: softxent.log_softmax_vjp(Z, g)),
    )

    @pytest.mark.parametrize(("name", "call"), VECTORS)
    @pytest.mark.parametrize("shape", [(), (3,), (1, 3), (4, 1), (3, 4), (4, 3, 1), (4,)])
    def test_of_another_shape(self, name, call, shape):
        with pytest.raises(ValueError, match=rf"{name} must have the logits' shape \(4, 3\); got \("):
            call(np.ones(shape))

    @pytest.mark.parametrize(("name", "call"), VECTORS)
    @pytest.mark.parametrize("code", [complex, object, str, "M8[s]"])
    def test_of_another_dtype(self, name, call, code):
        with pytest.raises(TypeError, match=f"{name} must hold real numbers"):
            call(np.ones((4, 3), int).astype(code))


T = np.full((4, 3), 1 / 3)


def divergence_of_logits(logits, target, **options):
    return softxent.kl_divergence_and_grad(logits, target, target_logits=True, **options)


@pytest.fixture(params=[softxent.kl_divergence, softxent.kl_divergence_and_grad, divergence_of_logits])
def divergence(request):
    return request.param


class TestDivergence:
    """What it does not take."""

    @pytest.mark.parametrize("shape", [(), (4,), (3,), (1, 3), (4, 1), (3, 4), (4, 3, 1)])
    def test_a_target_of_another_shape(self, shape, divergence):
        with pytest.raises(ValueError, match=r"target must have the logits' shape.* \(4, 3\); got \("):
            divergence(Z, np.ones(shape))

    @pytest.mark.parametrize("code", [complex, object, str, "M8[s]"])
    def test_a_target_or_logits_of_another_dtype(self, code, divergence):
        with pytest.raises(TypeError, match="target must hold real numbers"):
            divergence(Z, np.ones((4, 3), int).astype(code))
        with pytest.raises(TypeError, match="logits must hold real numbers"):
            divergence(np.ones((4, 3), int).astype(code), T)

    def test_masked_arrays(self, divergence):
        with pytest.raises(TypeError, match=r"target .*masked"):
            divergence(Z, np.ma.masked_less(T, 0))

    @pytest.mark.parametrize("bad", [-1, np.nan, -(2.0**-24)])
    @pytest.mark.parametrize("code", ["f2", "f4", "f8", ">f4"])
    @pytest.mark.parametrize("n_classes", [3, 100])
    def test_a_probability_that_is_none(self, bad, code, n_classes, isa):
        z = np.zeros((4, n_classes))
        target = np.full(z.shape, 1 / n_classes).astype(code)
        target[2, 1] = target[3, 0] = bad
        for function in (softxent.kl_divergence, softxent.kl_divergence_and_grad):
            with pytest.raises(ValueError, match=rf"target\[2, 1\] is {float(bad)}"):
                function(z, target)
            with pytest.raises(ValueError, match=rf"target\[1, 2\] is {float(bad)}"):
                function(z.T, target.T, axis=0)
        for out in (np.full_like(z, 7), z):
            before = out.copy()
            for accumulate in (False, True):
                with pytest.raises(ValueError, match=rf"target\[2, 1\] is {float(bad)}"):
                    softxent.kl_divergence_and_grad(z, target, out=out, accumulate=accumulate)
                np.testing.assert_array_equal(out, before)

    def test_integers_that_are_not_one_hot(self):
        for bad in (np.ones((4, 3), int), np.full((4, 3), 2), np.zeros((4, 3), bool)):
            with pytest.raises(ValueError, match=r"^target of dtype .* must be 1 for one class of each sample"):
                softxent.kl_divergence(Z, bad)

    def test_labels(self):
        with pytest.raises(ValueError, match=r"target must have the logits' shape"):
            softxent.kl_divergence(Z, Y)

    @pytest.mark.parametrize("name", ["temperature", "normalizer"])
    def test_numbers_out_of_their_range(self, name, divergence):
        for value in OUT_OF_RANGE["temperature"] if name == "temperature" else [-1, NAN, INF]:
            with pytest.raises(ValueError, match=f"{name} must be positive"):
                divergence(Z, T, **{name: value})
        for value in ("0.5", 1j) if name == "temperature" else ("0.5", 1j, [0.5], np.ones(4)):
            with pytest.raises(TypeError, match=f"{name} must be a number; got"):
                divergence(Z, T, **{name: value})

    def test_a_normalizer_of_0_where_samples_count(self, divergence):
        with pytest.raises(ValueError, match="normalizer is 0, but there are samples that count"):
            divergence(Z, T, normalizer=0)

    def test_bad_weights_masks_reductions_axes_and_thread_counts(self, divergence):
        for options, error, message in (
            ({"sample_weight": [1, 1, -1, 1]}, ValueError, r"sample_weight\[2\] is -1"),
            ({"sample_weight": np.ones(3)}, ValueError, r"sample_weight must have the samples' shape \(4,\); got \(3,"),
            ({"sample_weight": np.ones(4, str)}, TypeError, "sample_weight must hold real numbers"),
            ({"where": np.ones((4, 3))}, TypeError, "where must hold bools"),
            ({"where": np.ones(4, bool)}, ValueError, r"where must broadcast to the logits' shape \(4, 3\); got \(4,"),
            ({"reduction": "batchmean"}, ValueError, "reduction must be 'mean', 'sum' or 'none'; got"),
            ({"axis": 2}, np.exceptions.AxisError, "axis 2 is out of bounds"),
            ({"axis": None}, TypeError, "axis must be an integer"),
            ({"axis": (0, 1)}, TypeError, "axis must be an integer"),
            ({"n_threads": 0}, ValueError, "n_threads must be"),
        ):
            with pytest.raises(error, match=message):
                divergence(Z, T, **options)

    @pytest.mark.parametrize(
        "name", ["class_weight", "label_smoothing", "ignore_index", "softcap", "z_loss", "base", "log_target"]
    )
    def test_options_of_the_cross_entropy(self, name, divergence):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            divergence(Z, T, **{name: 1})

    def test_no_classes_and_no_axes(self, divergence):
        with pytest.raises(ValueError, match="logits must have at least one class"):
            divergence(np.zeros((4, 0)), np.zeros((4, 0)))
        with pytest.raises(ValueError, match="logits must have at least one axis"):
            divergence(1.0, 1.0)

    def test_an_out_that_will_not_do(self):
        read_only = np.zeros((4, 3))
        read_only.flags.writeable = False
        memory = np.full((4, 3), 1 / 3)
        for out, options, error, message in (
            (np.zeros((3, 4)), {}, ValueError, r"out must have the shape of the logits, \(4, 3\); got \(3, 4\)"),
            (np.zeros((4, 3), np.float32), {}, TypeError, "out must have dtype float64; got float32"),
            ([0.0], {}, TypeError, "out must be a NumPy array; got list"),
            (read_only, {}, ValueError, "out is read-only"),
            (None, {"accumulate": True}, ValueError, "accumulate=True adds to out"),
            (memory, {"sample_weight": memory[:, 1]}, ValueError, "out overlaps sample_weight in memory"),
            (memory, {"where": memory.view(bool)[:, :3]}, ValueError, "out overlaps where in memory"),
            (memory, {"target": memory}, ValueError, "out overlaps target in memory"),
        ):
            options = {"target": T} | options
            with pytest.raises(error, match=message):
                softxent.kl_divergence_and_grad(Z, out=out, **options)
        np.testing.assert_array_equal(memory, 1 / 3)

    def test_an_upstream_gradient_that_does_not_fit(self):
        with pytest.raises(ValueError, match="grad_output must be a number with reduction="):
            softxent.kl_divergence_and_grad(Z, T, grad_output=np.ones(4))
        with pytest.raises(ValueError, match=r"grad_output must have the samples' shape \(4,\); got \(4, 1\)"):
            softxent.kl_divergence_and_grad(Z, T, reduction="none", grad_output=np.ones((4, 1)))
        with pytest.raises(TypeError, match="grad_output must hold real numbers"):
            softxent.kl_divergence_and_grad(Z, T, grad_output=1j)


class TestEntropy:
    """What it does not take."""

    def test_an_upstream_gradient_that_does_not_fit(self):
        with pytest.raises(ValueError, match=r"grad_output must have the samples' shape \(4,\); got \(4, 1\)"):
            softxent.entropy_and_grad(Z, grad_output=np.ones((4, 1)))
        with pytest.raises(TypeError, match="grad_output must hold real numbers"):
            softxent.entropy_and_grad(Z, grad_output=1j)

    def test_an_out_that_will_not_do(self):
        memory = np.ones((4, 3))
        with pytest.raises(ValueError, match=r"out must have the shape of the samples, \(4,\)"):
            softxent.entropy(Z, out=np.zeros(3))
        with pytest.raises(ValueError, match=r"out must have the shape of the samples, \(4, 1\)"):
            softxent.entropy(Z, keepdims=True, out=np.zeros(4))
        with pytest.raises(ValueError, match=r"out must have the shape of the samples, \(4, 1\)"):
            softxent.logsumexp(Z, keepdims=True, out=np.zeros(4))
        with pytest.raises(ValueError, match=r"out must have the shape of the logits, \(4, 3\)"):
            softxent.entropy_and_grad(Z, out=np.zeros(4))
        with pytest.raises(TypeError, match="out must have dtype float64; got float32"):
            softxent.entropy(Z, out=np.zeros(4, np.float32))
        with pytest.raises(ValueError, match="out overlaps logits in memory"):
            softxent.entropy(memory, out=memory[:, 0])
        with pytest.raises(ValueError, match="out overlaps where in memory"):
            softxent.entropy_and_grad(Z, where=memory.view(bool)[:, :3], out=memory)
        with pytest.raises(ValueError, match="out overlaps grad_output in memory"):
            softxent.entropy_and_grad(Z, grad_output=memory[:, 1], out=memory)
        np.testing.assert_array_equal(memory, 1)


class TestPair:
    """An `out` for gradient and diagonal that is invalid in one of them. The valid one is not written."""

    def refuse(self, error, match, out, logits=Z, labels=Y, **options):
        before = [None if a is None else np.array(a) for a in out]
        with pytest.raises(error, match=match):
            softxent.cross_entropy_grad_hess(logits, labels, out=out, **options)
        for a, b in zip(out, before, strict=True):
            if a is not None:
                np.testing.assert_array_equal(a, b)

    def test_that_is_none(self):
        for bad in ([np.zeros_like(Z), np.zeros_like(Z)], np.zeros((2, 4, 3)), (np.zeros_like(Z),), (None,) * 3, ()):
            with pytest.raises(TypeError, match="out must be a pair of arrays, for the gradient and the diagonal; got"):
                softxent.cross_entropy_grad_hess(Z, Y, out=bad)

    @pytest.mark.parametrize("place", [0, 1])
    def test_of_another_shape_dtype_or_kind(self, place):
        def pair(bad):
            return (bad, np.full_like(Z, 7)) if place == 0 else (np.full_like(Z, 7), bad)

        self.refuse(
            ValueError, r"out must have the shape of the logits, \(4, 3\); got \(3, 4\)", pair(np.zeros((3, 4)))
        )
        self.refuse(TypeError, "out must have dtype float64; got float32", pair(np.zeros_like(Z, np.float32)))
        self.refuse(TypeError, "out must be a NumPy array; got list", pair(Z.tolist()))
        read_only = np.zeros_like(Z)
        read_only.flags.writeable = False
        self.refuse(ValueError, "out is read-only", pair(read_only))
        self.refuse(
            ValueError, "share their memory", pair(np.lib.stride_tricks.as_strided(np.zeros(16), (4, 3), (8, 8)))
        )

    def test_each_of_which_overlaps_the_other(self):
        memory = np.full((5, 3), 7.0)
        self.refuse(ValueError, "out overlaps the gradient's in memory", (memory[:4], memory[1:]))
        self.refuse(ValueError, "out overlaps the gradient's in memory", (memory[:4], memory[:4]))

    def test_whose_diagonal_is_the_logits(self):
        z = Z.copy()
        self.refuse(ValueError, "out overlaps logits", (None, z), logits=z)
        self.refuse(ValueError, "out overlaps the gradient's|out overlaps logits", (z, z), logits=z)
        _, grad, _ = softxent.cross_entropy_grad_hess(z, Y, out=(z, None))
        assert grad is z

    @pytest.mark.parametrize("place", [0, 1])
    def test_that_overlaps_an_input(self, place):
        def pair(bad):
            return (bad, np.full_like(Z, 7)) if place == 0 else (np.full_like(Z, 7), bad)

        memory = np.ones((4, 3))
        self.refuse(ValueError, "out overlaps labels", pair(memory), labels=memory)
        self.refuse(ValueError, "out overlaps labels", pair(memory), labels=memory.view(np.int64)[:, 0])
        self.refuse(ValueError, "out overlaps sample_weight", pair(memory), sample_weight=memory[:, 1])
        where = memory.view(bool)[:, :3]
        self.refuse(ValueError, "out overlaps where", pair(memory), where=where)
        self.refuse(ValueError, "out overlaps class_weight", pair(memory), class_weight=memory[2])


class TestOverlap:
    """Outputs that overlap what the options read."""

    MEMORY_OF = (
        ("where", lambda memory: memory.view(bool)[:, :3]),
        ("sample_weight", lambda memory: memory[:, 1]),
        ("class_weight", lambda memory: memory[2]),
    )

    @pytest.mark.parametrize(("name", "part"), MEMORY_OF)
    def test_of_a_gradient_or_product(self, name, part):
        memory = np.ones((4, 3))
        for function in (softxent.cross_entropy_and_grad, hvp):
            with pytest.raises(ValueError, match=f"out overlaps {name} in memory"):
                function(Z, Y, out=memory, **{name: part(memory)})
        np.testing.assert_array_equal(memory, 1)

    @pytest.mark.parametrize(("name", "part"), MEMORY_OF)
    def test_of_losses(self, name, part):
        memory = np.ones((4, 3))
        out = memory[:, 0] if name != "sample_weight" else memory[:, 1]
        with pytest.raises(ValueError, match=f"out overlaps {name} in memory"):
            softxent.cross_entropy(Z, Y, reduction="none", out=out, **{name: part(memory)})
        np.testing.assert_array_equal(memory, 1)

    def test_of_losses_with_logits_or_labels(self):
        z = np.zeros((4, 4))
        with pytest.raises(ValueError, match="out overlaps logits"):
            softxent.cross_entropy(z, Y, reduction="none", out=z[0])
        with pytest.raises(ValueError, match="out overlaps labels"):
            softxent.cross_entropy(Z, z.view(np.int64)[0], reduction="none", out=z[0])
        with pytest.raises(ValueError, match="out overlaps labels"):
            softxent.cross_entropy(np.ones((4, 4)), z, reduction="none", out=z[:, 2])
        np.testing.assert_array_equal(z, 0)

    def test_of_a_product_with_its_direction(self):
        v = np.ones((5, 3))
        for out in (v[:4], v[1:]):
            with pytest.raises(ValueError, match="out overlaps v in memory"):
                softxent.cross_entropy_hvp(Z, Y, v[:4], out=out)
        np.testing.assert_array_equal(v, 1)

    def test_of_a_product_with_the_logits_but_in_place(self):
        memory = np.arange(15.0).reshape(5, 3)
        with pytest.raises(ValueError, match="out overlaps logits in memory"):
            softxent.cross_entropy_hvp(memory[:4], Y, Z, out=memory[1:])
        np.testing.assert_array_equal(memory, np.arange(15.0).reshape(5, 3))
        z = Z.copy()
        expected = softxent.cross_entropy_hvp(z, Y, Z)
        assert softxent.cross_entropy_hvp(z, Y, Z, out=z) is z
        np.testing.assert_array_equal(z, expected)

    def test_of_the_softmax_family_with_where(self):
        memory = np.ones((4, 3))
        for function in (softxent.softmax, softxent.log_softmax):
            with pytest.raises(ValueError, match="out overlaps where in memory"):
                function(Z, where=memory.view(bool)[:, :3], out=memory)
        with pytest.raises(ValueError, match="out overlaps where in memory"):
            softxent.logsumexp(Z, where=memory.view(bool)[:, :3], out=memory[:, 0])
        z = np.zeros((4, 4))
        with pytest.raises(ValueError, match="out overlaps logits in memory"):
            softxent.logsumexp(z, out=z[:, 1])
        np.testing.assert_array_equal(memory, 1)


# ----------------------------------------------------------------------------------------------------------------------
# Nothing is written.

BAD_ARGUMENTS = [
    {"axis": 2},
    {"reduction": "average"},
    {"n_threads": 0},
    {"ignore_index": 0.5},
    {"label_smoothing": 2.0},
    {"temperature": 0.0},
    {"base": 1},
    {"normalizer": "all"},
    {"class_weight": [1, -1, 1]},
    {"class_weight": [1, 1]},
    {"sample_weight": [1, 1, 1, NAN]},
    {"where": [1, 0, 1]},
    {"where": [True, False]},
]


@pytest.mark.parametrize("bad", BAD_ARGUMENTS, ids=repr)
def test_no_output_is_written_where_an_argument_is_bad(bad):
    errors = (ValueError, TypeError, np.exceptions.AxisError)
    first, second = np.full_like(Z, 7), np.full_like(Z, 7)
    calls = [
        lambda: softxent.cross_entropy_and_grad(Z, Y, out=first, **bad),
        lambda: softxent.cross_entropy_and_grad(Z, Y, out=first, accumulate=True, **bad),
        lambda: softxent.cross_entropy_grad_hess(Z, Y, out=(first, second), **bad),
        lambda: softxent.cross_entropy_hvp(Z, Y, Z, out=first, **bad),
        lambda: softxent.cross_entropy(Z, Y, out=first[:, 0], **{"reduction": "none"} | bad),
    ]
    if bad.keys() & {"where", "temperature", "n_threads", "axis"}:
        calls += [
            lambda: softxent.softmax(Z, out=first, **bad),
            lambda: softxent.log_softmax(Z, out=first, **bad),
            lambda: softxent.logsumexp(Z, out=first[:, 0], **bad),
        ]
    for call in calls:
        with pytest.raises(errors):
            call()
        np.testing.assert_array_equal(first, 7)
        np.testing.assert_array_equal(second, 7)


OPTIONS_OF_LABELS = {
    "class_weight": lambda n, c: np.ones(c),
    "sample_weight": lambda n, c: np.ones(n),
    "where": lambda n, c: np.ones((n, c), bool),
    "label_smoothing": lambda n, c: 0.1,
    "temperature": lambda n, c: 2.0,
    "base": lambda n, c: 2,
    "normalizer": lambda n, c: 3.0,
    "softcap": lambda n, c: 3.0,
    "z_loss": lambda n, c: 3.0,
}
assert {*Options._fields} <= {*OPTIONS_OF_LABELS}  # a new one has its value here


@pytest.mark.parametrize("n_classes", [3, 100])
@pytest.mark.parametrize("name", OPTIONS_OF_LABELS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_bad_label_is_named_and_nothing_written_with_any_option(n_classes, name, reduction):
    rng = np.random.default_rng(1)
    z, labels = rng.normal(size=(1000, n_classes)).astype(np.float32), np.zeros(1000, int)
    labels[997] = n_classes
    first, second, before = np.full_like(z, 7), np.full_like(z, 7), z.copy()
    options = {name: OPTIONS_OF_LABELS[name](1000, n_classes), "reduction": reduction}
    calls = [
        lambda: softxent.cross_entropy(z, labels, **options),
        lambda: softxent.cross_entropy_and_grad(z, labels, **options),
        lambda: softxent.cross_entropy_and_grad(z, labels, out=first, **options),
        lambda: softxent.cross_entropy_and_grad(z, labels, out=first, accumulate=True, **options),
        lambda: softxent.cross_entropy_and_grad(z, labels, out=z, **options),
    ]
    if reduction == "none":
        calls.append(lambda: softxent.cross_entropy(z, labels, out=first[:, 0], **options))
    if name not in ("softcap", "z_loss"):
        calls += [
            lambda: softxent.cross_entropy_grad_hess(z, labels, **options),
            lambda: softxent.cross_entropy_grad_hess(z, labels, out=(first, second), **options),
            lambda: softxent.cross_entropy_grad_hess(z, labels, out=(z, second), **options),
            lambda: softxent.cross_entropy_hvp(z, labels, before, **options),
            lambda: softxent.cross_entropy_hvp(z, labels, before, out=first, **options),
            lambda: softxent.cross_entropy_hvp(z, labels, before, out=z, **options),
        ]
    for call in calls:
        with pytest.raises(IndexError, match=rf"labels\[997\] is {n_classes}, which is not a class"):
            call()
        for array, expected in ((first, 7), (second, 7), (z, before)):
            np.testing.assert_array_equal(array, expected)


class TestMemory:
    """Memory that is not available."""

    def test_for_a_jacobian(self):
        z = np.broadcast_to(np.float32(0), (4, 2**24))  # the arguments take no memory; the Jacobian would take 4 PB
        with pytest.raises(MemoryError):
            softxent.softmax_jacobian(z)

    def test_for_a_jacobian_beyond_what_an_address_can_say(self):
        with pytest.raises(MemoryError):
            softxent.softmax_jacobian(np.broadcast_to(np.float32(0), 2**33))

    @pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"reduction": "none"}, {"label_smoothing": 0.1}])
    def test_for_a_gradient(self, options):
        z = np.broadcast_to(np.float32(0), (2**46, 4))
        labels = np.broadcast_to(np.int8(0), 2**46)
        for function in (softxent.cross_entropy_and_grad, softxent.cross_entropy_grad_hess):
            with pytest.raises(MemoryError):
                function(z, labels, **options)

    def test_for_a_product(self):
        z = np.broadcast_to(np.float32(0), (2**46, 4))
        with pytest.raises(MemoryError):
            softxent.cross_entropy_hvp(z, np.broadcast_to(np.int8(0), 2**46), z)
        for function in (softxent.softmax_jvp, softxent.softmax_vjp):
            with pytest.raises(MemoryError):
                function(z, z)

    def test_for_the_softmax_family(self):
        z = np.broadcast_to(np.float32(0), (2**46, 4))
        for function in FAMILY:
            with pytest.raises(MemoryError):
                function(z)


@pytest.mark.parametrize("n", [4, 100_000], ids=["one chunk", "many chunks"])
def test_what_the_c_library_refuses_is_an_error_of_ours_and_no_result(n):
    call = _kernels.Call()
    assert call.take_logits(np.zeros((n, 3)), -1)
    for operation in (_kernels.SOFTMAX, _kernels.JVP):  # without an output
        with pytest.raises(RuntimeError, match="the C library refuses the call: bad argument"):
            call.run(operation, 2)
