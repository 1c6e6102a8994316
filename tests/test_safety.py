"""Whatever else happens in the process: labels that change during the call, many threads, a fork. No access out of
bounds, no input written, no deadlock."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import softxent

LARGE = (4000, 100)


@pytest.mark.parametrize("shape", [(20000, 10), LARGE])
@pytest.mark.parametrize("label_type", [np.int8, np.int64, np.uint64])
def test_labels_that_change_during_the_call_are_caught_where_they_are_used(shape, label_type, isa, rng):
    z = rng.normal(size=shape).astype(np.float32)
    labels, stop = np.zeros(shape[0], label_type), threading.Event()
    guarded = np.full(z.size + 4096, 7, np.float32)  # 8 kB on either side
    out = guarded[2048:-2048].reshape(shape)
    wild = np.array([120, 0], label_type) if label_type == np.int8 else np.array([2**62, 0], label_type)

    def mutate():
        while not stop.is_set():
            labels[::7] = wild[0]
            labels[::7] = wild[1]

    thread = threading.Thread(target=mutate)
    thread.start()
    try:
        seen = set()
        for _ in range(200):
            try:
                softxent.cross_entropy_and_grad(z, labels, out=out)
                seen.add("result")
            except IndexError:
                seen.add("error")
    finally:
        stop.set()
        thread.join()
    assert np.all(guarded[:2048] == 7)
    assert np.all(guarded[-2048:] == 7)
    assert "error" in seen


def test_inputs_are_never_written(dtype, isa, rng):
    for shape in ((50, 10), (50, 100)):
        z, target = rng.normal(size=shape).astype(dtype), rng.random(shape).astype(dtype)
        labels, upstream = rng.integers(0, shape[1], 50), rng.random(50).astype(dtype)
        arrays = (z, target, labels, upstream)
        before = [a.copy() for a in arrays]
        for a in arrays:
            a.flags.writeable = False
        softxent.cross_entropy_and_grad(z, labels)
        softxent.cross_entropy_and_grad(z, labels, reduction="none", grad_output=upstream)
        softxent.cross_entropy_and_grad(z, target, ignore_index=None)
        softxent.cross_entropy(z, labels, ignore_index=1)
        for function in (softxent.softmax, softxent.log_softmax, softxent.logsumexp):
            function(z)
        for a, b in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(a, b)


def test_many_threads_may_call_at_once(isa, rng):
    problems = [(rng.normal(size=LARGE).astype(np.float32), rng.integers(0, 100, LARGE[0])) for _ in range(8)]
    expected = [softxent.cross_entropy_and_grad(z, y) for z, y in problems]

    def call(i):
        z, y = problems[i % 8]
        loss, grad = softxent.cross_entropy_and_grad(z, y, n_threads=1 + i % 3)
        return loss == expected[i % 8][0] and np.array_equal(grad, expected[i % 8][1])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(64)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_works():
    """In a process of its own: libgomp's threads do not survive a fork, and a child that used them would hang."""
    code = """
import os, warnings
import numpy as np, softxent
warnings.simplefilter("ignore", DeprecationWarning)
z, y = np.ones((4000, 100), np.float32), np.zeros(4000, int)
before = softxent.cross_entropy(z, y, n_threads=2)
pid = os.fork()
if pid == 0:
    ok = softxent.cross_entropy(z, y, n_threads=2) == before and softxent.get_num_threads() == 1
    os._exit(0 if ok else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_gil_is_released(rng):
    """Another Python thread makes progress while a long call runs on one thread."""
    z, labels = rng.normal(size=(20000, 500)).astype(np.float32), rng.integers(0, 500, 20000)
    progress, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            progress[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        # The counter can only move between these two lines if the call lets it: they are one bytecode apart.
        moved = 0
        for _ in range(20):
            before = progress[0]
            softxent.cross_entropy(z, labels, n_threads=1)
            moved += progress[0] - before > 1000
    finally:
        stop.set()
        thread.join()
    assert moved > 0


def test_more_than_2_to_the_31_strides_do_not_overflow(isa):
    """Offsets beyond 2^31 elements: a view of two rows far apart in reserved, untouched memory."""
    try:
        memory = np.zeros(2**31 + 64, np.int8)  # zero pages, never touched but at the ends
    except MemoryError:
        pytest.skip("2 GB of address space cannot be had")
    labels = np.lib.stride_tricks.as_strided(memory, (2,), (2**31 + 1,))
    labels[1] = 3
    z = np.zeros((2, 4), np.float32)
    z[1, 3] = 5
    losses = softxent.cross_entropy(z, labels, reduction="none")
    assert losses[0] == pytest.approx(np.log(4), rel=1e-6)
    assert losses[1] < 0.1
