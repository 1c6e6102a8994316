"""The table of refusals, a test a line: each message names the argument, what it was and what would do, and nothing is
written."""

import numpy as np
import pytest

import softxent

Z = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 2, 0])


@pytest.fixture(params=[softxent.cross_entropy, softxent.cross_entropy_and_grad], ids=["loss", "loss and grad"])
def call(request):
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
    for function in (softxent.softmax, softxent.log_softmax, softxent.logsumexp):
        with pytest.raises(TypeError, match="logits must hold real numbers"):
            function(array)


@pytest.mark.parametrize("labels", [Y[:3], Y[None], np.zeros((4, 2)), np.zeros((1, 3)), np.zeros((4, 3, 1)), 0])
def test_shapes_that_do_not_fit_are_refused_and_nothing_broadcasts(labels, call):
    with pytest.raises(ValueError, match=r"labels .*\(4,"):
        call(Z, labels)


def test_ragged_lists_are_refused_by_name(call):
    with pytest.raises(ValueError, match="logits must be an array, or lists of one length; got list"):
        call([[1.0, 2.0], [3.0]], [0, 0])
    with pytest.raises(ValueError, match="labels must be an array"):
        call(Z, [[0, 1], [0]])
    with pytest.raises(ValueError, match="logits must be an array"):
        softxent.softmax([[1.0, 2.0], [3.0]])


def test_no_classes_and_no_axes_are_refused(call):
    with pytest.raises(ValueError, match="logits must have at least one class"):
        call(np.zeros((4, 0)), Y)
    with pytest.raises(ValueError, match="logits must have at least one axis"):
        call(np.float64(3), 0)
    with pytest.raises(ValueError, match="logits must have at least one axis"):
        softxent.softmax(3.0)


@pytest.mark.parametrize("axis", [2, -3, 100, 2**70])
def test_an_axis_out_of_range_is_an_axis_error(axis, call):
    with pytest.raises(np.exceptions.AxisError, match=f"axis {axis} is out of bounds"):
        call(Z, Y, axis=axis)
    with pytest.raises(np.exceptions.AxisError):
        softxent.logsumexp(Z, axis)


@pytest.mark.parametrize("axis", [None, 1.0, -1.0, (0, 1), "1", np.array([-1, -1])])
def test_an_axis_must_be_an_integer(axis, call):
    with pytest.raises(TypeError, match="axis must be an integer"):
        call(Z, Y, axis=axis)


@pytest.mark.parametrize("reduction", ["average", "", None, 3, np.array(["mean"]), np.array(["mean", "sum"])])
def test_an_unknown_reduction_is_refused(reduction, call):
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none'; got"):
        call(Z, Y, reduction=reduction)


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_thread_count_below_one_is_refused(n, error, call):
    with pytest.raises(error, match="n_threads must be"):
        call(Z, Y, n_threads=n)
    with pytest.raises(error, match="n_threads must be"):
        softxent.softmax(Z, n_threads=n)
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


class TestOut:
    """An `out` that will not do."""

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
        for strides in ((0, 8), (8, 8), (8, 0), (-8, 8)):
            out = np.lib.stride_tricks.as_strided(np.zeros(16)[8:], (4, 3), strides)
            with pytest.raises(ValueError, match="share their memory"):
                softxent.cross_entropy_and_grad(Z, Y, out=out)

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
