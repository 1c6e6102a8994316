"""The table of values at the edges, a test a line, for the row kernel and the lane kernel."""

import numpy as np
import pytest

import softxent

INF = np.inf


@pytest.fixture(params=["rows", "few classes", "class axis first"])
def kernel(request):
    """Embeds a few logits in a sample that the named kernel takes: further classes at -inf change nothing."""

    def embedded(rows, dtype):
        z = np.asarray(rows, dtype)
        if request.param != "few classes":
            z = np.concatenate([z, np.full((len(z), 40), -INF, dtype)], axis=1)
        return np.asfortranarray(z) if request.param == "class axis first" else z

    return embedded


def losses_and_grad(z, labels, **options):
    return softxent.cross_entropy_and_grad(z, np.array(labels), reduction="none", **options)


def test_a_class_at_minus_infinity_is_as_if_absent(kernel, dtype, isa):
    losses, grad = losses_and_grad(kernel([[1, -INF, 0.5]], dtype), [0])
    alone_losses, alone_grad = losses_and_grad(np.array([[1, 0.5]], dtype), [0])
    assert losses[0] == alone_losses[0]
    assert grad[0, 1] == 0
    np.testing.assert_array_equal(grad[0, [0, 2]], alone_grad[0])
    np.testing.assert_array_equal(softxent.softmax(kernel([[1, -INF, 0.5]], dtype))[0, 1], 0)


def test_a_label_at_minus_infinity_has_infinite_loss_and_finite_gradient(kernel, dtype, isa):
    losses, grad = losses_and_grad(kernel([[1, -INF, 1]], dtype), [1])
    assert losses[0] == INF
    np.testing.assert_array_equal(grad[0, :3], [0.5, -1, 0.5])


@pytest.mark.parametrize("t", [[1, 0, 0], [0.5, 0, 0.5]])
def test_no_target_mass_at_minus_infinity_costs_nothing(t, kernel, dtype, isa):
    z = kernel([[1, -INF, 1]], dtype)
    target = np.zeros_like(z)
    target[0, :3] = t
    losses, grad = softxent.cross_entropy_and_grad(z, target, reduction="none")
    assert losses[0] == pytest.approx(np.log(2), rel=1e-6)
    assert grad[0, 1] == 0


def test_target_mass_at_minus_infinity_costs_infinitely_much(kernel, dtype, isa):
    z = kernel([[1, -INF, 1]], dtype)
    target = np.zeros_like(z)
    target[0, :3] = [0.5, 0.5, 0]
    losses, grad = softxent.cross_entropy_and_grad(z, target, reduction="none")
    assert losses[0] == INF
    np.testing.assert_array_equal(grad[0, :3], [0, -0.5, 0.5])


@pytest.mark.parametrize("row", [[-INF, -INF, -INF], [1, np.nan, 0], [1, INF, 0], [INF, INF, INF], [np.nan] * 3])
def test_a_sample_without_a_finite_maximum_or_with_nan_is_nan(row, kernel, dtype, isa):
    z = kernel([row, [1, 2, 3]], dtype)
    losses, grad = losses_and_grad(z, [0, 0])
    assert np.isnan(losses[0])
    assert np.all(np.isnan(grad[0]))
    assert np.all(np.isfinite(losses[1]))
    assert np.all(np.isfinite(grad[1]))
    assert np.all(np.isnan(softxent.softmax(z)[0]))
    assert np.all(np.isnan(softxent.log_softmax(z)[0]))
    np.testing.assert_array_equal(softxent.logsumexp(z)[0], -INF if row[0] == -INF else np.nan)
    target = np.zeros_like(z)
    target[:, 0] = 1
    losses, grad = softxent.cross_entropy_and_grad(z, target, reduction="none")
    assert np.isnan(losses[0])
    assert np.all(np.isnan(grad[0]))


def test_nan_beside_minus_infinity_is_nan_for_logsumexp(kernel, dtype, isa):
    np.testing.assert_array_equal(softxent.logsumexp(kernel([[-INF, np.nan, -INF]], dtype)), [np.nan])


@pytest.mark.parametrize("row", [[-INF, -INF, -INF], [1, np.nan, 0], [1, INF, 0]])
def test_an_ignored_sample_is_zero_whatever_it_holds(row, kernel, dtype, isa):
    z = kernel([[1, 2, 3], row, [3, 2, 1]], dtype)
    losses, grad = losses_and_grad(z, [0, -100, 2], ignore_index=-100)
    assert losses[1] == 0
    np.testing.assert_array_equal(grad[1], 0)
    assert not np.any(np.signbit(grad[1]))
    apart_losses, apart_grad = losses_and_grad(z[[0, 2]], [0, 2])
    np.testing.assert_array_equal(losses[[0, 2]], apart_losses)
    np.testing.assert_array_equal(grad[[0, 2]], apart_grad)


@pytest.mark.parametrize("labels", [[], [-1, -1]])
def test_the_mean_of_nothing_is_nan_and_its_gradient_zero(labels, kernel, dtype, isa):
    z = kernel(np.zeros((len(labels), 3)), dtype)
    labels = np.array(labels, int)
    loss, grad = softxent.cross_entropy_and_grad(z, labels, ignore_index=-1)
    assert np.isnan(loss)
    assert grad.shape == z.shape
    assert np.all(grad == 0)
    assert softxent.cross_entropy(z, labels, ignore_index=-1, reduction="sum") == 0.0
    none = softxent.cross_entropy(z, labels, ignore_index=-1, reduction="none")
    np.testing.assert_array_equal(none, np.zeros(len(labels), dtype))


def test_no_samples_are_no_error_without_ignore_index_either(dtype):
    z = np.zeros((0, 5), dtype)
    assert np.isnan(softxent.cross_entropy(z, np.zeros(0, int)))
    assert np.isnan(softxent.cross_entropy(z, np.zeros((0, 5))))
    assert softxent.softmax(z).shape == (0, 5)
    assert softxent.logsumexp(np.zeros((3, 0, 5), dtype)).shape == (3, 0)


@pytest.mark.parametrize("n_classes", [10, 1000])
def test_a_lead_of_30_keeps_its_loss_and_gradient(n_classes, isa):
    z = np.zeros((1, n_classes), np.float32)
    z[0, 4] = 30
    losses, grad = losses_and_grad(z, [4])
    expected = 9.357622968840175e-14 * (n_classes - 1)
    assert losses[0] == pytest.approx(expected, rel=1e-6, abs=0)
    assert grad[0, 4] == pytest.approx(-expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("n_classes", [2, 10, 100, 1000])
def test_equal_logits_near_1e8_are_exact(n_classes, isa):
    losses, grad = losses_and_grad(np.full((1, n_classes), 1e8, np.float32), [1])
    assert losses[0] == np.float32(np.log(n_classes))
    assert grad[0, 0] == np.float32(1) / np.float32(n_classes)


def test_one_class_has_loss_and_gradient_zero(dtype, isa):
    losses, grad = losses_and_grad(np.array([[3.7], [-1e30], [0.1]], dtype), [0, 0, 0])
    np.testing.assert_array_equal(losses, 0)
    np.testing.assert_array_equal(grad, 0)
    np.testing.assert_array_equal(softxent.softmax(np.array([[3.7], [0.1]], dtype)), 1)


def test_the_ends_of_the_range_do_not_overflow(kernel, dtype, isa):
    big = np.finfo(dtype).max
    losses, grad = losses_and_grad(kernel([[big, -big, 0]], dtype), [0])
    assert losses[0] == 0
    np.testing.assert_array_equal(grad[0], 0)
    losses, _ = losses_and_grad(kernel([[-big, -big, -big]], dtype), [0])
    assert losses[0] == pytest.approx(np.log(3), rel=1e-6)


def test_no_probability_is_denormal(kernel, dtype, isa):
    tiny = np.finfo(dtype).tiny
    p = softxent.softmax(kernel([np.linspace(0, -800, 4001)], dtype))
    assert np.all((p == 0) | (p >= tiny))
    assert p[0, 5] > 0
    _, grad = losses_and_grad(kernel([np.linspace(0, -800, 4001)], dtype), [0], grad_output=1e-9)
    assert np.all((grad == 0) | (np.abs(grad) >= tiny))


@pytest.mark.parametrize(("code", "lead"), [("f4", 88), ("f4", 90), ("f4", 95), ("f8", 709), ("f8", 715)])
@pytest.mark.parametrize("n_classes", [20, 100, 128256])
@pytest.mark.parametrize("order", ["C", "F"])
def test_terms_too_small_for_the_dtype_still_add_up(code, lead, n_classes, order, isa):
    z = np.zeros((2, n_classes), code, order=order)
    z[:, 7] = lead
    info = np.finfo(code)
    # In factors, each of which float64 holds.
    others = np.exp(-lead / 2) * (n_classes - 1) * np.exp(-lead / 2)
    tolerance = 4 * (1 + lead) * float(info.eps)
    for upstream in (1.0, 1e10):
        losses, grad = losses_and_grad(z, [7, 7], grad_output=upstream)
        if others >= info.tiny:
            assert float(losses[0]) == pytest.approx(others, rel=tolerance, abs=0)
        if others * upstream >= info.tiny:
            assert float(grad[0, 7]) == pytest.approx(-others * upstream, rel=tolerance, abs=0)


def test_an_empty_batch_may_have_an_output(dtype):
    z, labels = np.zeros((0, 3), dtype), np.zeros(0, int)
    assert np.isnan(softxent.cross_entropy_and_grad(z, labels, out=np.zeros((0, 3), dtype))[0])
    assert softxent.cross_entropy_and_grad(z, labels, out=z, reduction="sum")[0] == 0
    assert softxent.cross_entropy(z, labels, reduction="none", out=np.zeros(0, dtype)).shape == (0,)
    assert softxent.softmax(z, out=np.zeros((0, 3), dtype)).shape == (0, 3)
