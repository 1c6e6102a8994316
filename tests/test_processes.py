"""In other people's processes: forks and pools, other OpenMP runtimes and who limits them, many threads, Ctrl-C, memory
that runs out. Each in a process of its own, which hangs, crashes or multiplies threads without harm to the others."""

import importlib.util
import itertools
import os
import subprocess
import sys
import sysconfig
import textwrap

import pytest

from softxent import _kernels

HAS_FORK = hasattr(os, "fork")
needs_openmp = pytest.mark.skipif(not _kernels.OPENMP_VERSION, reason="built without OpenMP")
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")

PROBLEM = """
import os, warnings
import numpy as np, softxent
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # fork with threads
z, y = np.random.default_rng(0).standard_normal((4000, 100)).astype("f4"), np.arange(4000) % 100
def loss_and_grad(n_threads=2):
    return softxent.cross_entropy_and_grad(z, y, n_threads=n_threads)
def same(result, expected):
    return result[0] == expected[0] and np.array_equal(result[1], expected[1])
"""


def run(code, tmp_path, imports="", **environment):
    """Run a program that starts with PROBLEM, and return what it prints. The program is a file, so that a spawned child
    can import it.
    """
    program = tmp_path / "program.py"
    program.write_text(imports + PROBLEM + textwrap.dedent(code))
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "SOFTXENT_NUM_THREADS", "PYTHON_GIL")}
    command = [sys.executable, "-W", "error", program]
    done = subprocess.run(command, env=env | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- Children ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_pool_of_processes_computes_the_same(method, tmp_path):
    if not HAS_FORK and method != "spawn":
        pytest.skip("there is no fork here")
    code = f"""
    import multiprocessing
    if __name__ == "__main__":
        expected = loss_and_grad()
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            assert all(same(result, expected) for result in pool.map(loss_and_grad, [1, 2, 3, 4]))
    """
    run(code, tmp_path)


@pytest.mark.skipif(not HAS_FORK, reason="there is no fork here")
def test_a_child_that_c_code_forked_is_serial(tmp_path):
    """Python's own hooks do not run in such a child."""
    code = """
    import ctypes
    expected = loss_and_grad()
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        ok = softxent.get_num_threads() == 1 and same(loss_and_grad(), expected)
        os._exit(0 if ok else 1)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    run(code, tmp_path)


@pytest.mark.skipif(not HAS_FORK, reason="there is no fork here")
def test_a_child_forked_while_other_threads_compute(tmp_path):
    code = """
    import threading
    expected, stop = loss_and_grad(), threading.Event()
    def work():
        while not stop.is_set():
            loss_and_grad()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if same(loss_and_grad(), expected) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    stop.set()
    for thread in threads:
        thread.join()
    """
    run(code, tmp_path)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(backend, tmp_path):
    pytest.importorskip("joblib")
    code = f"""
    from joblib import Parallel, delayed
    if __name__ == "__main__":
        expected = loss_and_grad()
        results = Parallel(n_jobs=2, backend={backend!r})(delayed(loss_and_grad)(n) for n in (1, 2, 3, 4))
        assert all(same(result, expected) for result in results)
    """
    run(code, tmp_path)


def test_the_workers_of_a_pytorch_data_loader(tmp_path):
    pytest.importorskip("torch")
    code = """
    import torch
    class Losses(torch.utils.data.Dataset):
        def __len__(self):
            return 8
        def __getitem__(self, i):
            return torch.from_numpy(loss_and_grad()[1][i])
    if __name__ == "__main__":
        expected = loss_and_grad()[1][:8]
        loader = torch.utils.data.DataLoader(Losses(), batch_size=4, num_workers=2)
        assert np.array_equal(np.concatenate([batch.numpy() for batch in loader]), expected)
    """
    run(code, tmp_path)


# ---- Other runtimes, and whoever limits threads --------------------------------------------------------------------


@pytest.mark.parametrize(
    "order", [*itertools.permutations(["softxent", "torch", "sklearn.linear_model"])], ids="-".join
)
def test_beside_other_openmp_runtimes_in_every_order(order, tmp_path):
    for name in order:
        if importlib.util.find_spec(name.split(".")[0]) is None:
            pytest.skip(f"{name} is not installed")
    code = """
    import torch, sklearn.linear_model
    assert softxent.get_num_threads() >= 1
    expected, product = loss_and_grad(), None
    for _ in range(5):
        t = torch.from_numpy(z)
        loss = torch.nn.functional.cross_entropy(t, torch.from_numpy(y))
        assert abs(float(loss) - expected[0]) < 1e-5
        again = t @ t.T
        assert product is None or torch.equal(product, again)
        product = again
        sklearn.linear_model.LogisticRegression(max_iter=3, tol=1e9).fit(z[:200, :5], y[:200] % 2)
        assert same(loss_and_grad(), expected)
    """
    run(code, tmp_path, "".join(f"import {name}\n" for name in order))


@pytest.mark.parametrize("order", [*itertools.permutations(["softxent", "torch"])], ids="-".join)
def test_beside_pytorch_without_scikit_learn(order, tmp_path):
    """LLVM's runtime, which wheels for macOS bundle, ends a process that holds a second copy of it. Importing
    scikit-learn allows that for the whole process, so that beside it nobody would see."""
    pytest.importorskip("torch")
    code = """
    import torch
    expected = loss_and_grad()
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(z), torch.from_numpy(y))
    assert abs(float(loss) - expected[0]) < 1e-5
    assert same(loss_and_grad(), expected)
    """
    run(code, tmp_path, "".join(f"import {name}\n" for name in order))


@needs_openmp
@needs_proc
def test_threadpoolctl_governs_every_call(tmp_path):
    pytest.importorskip("threadpoolctl")
    code = """
    from threadpoolctl import threadpool_limits
    count = lambda: len(os.listdir("/proc/self/task"))
    assert softxent.get_num_threads() == 4
    with threadpool_limits(1):
        assert softxent.get_num_threads() == 1
        before = count()
        loss_and_grad(4)
        assert count() == before
    assert softxent.get_num_threads() == 4
    with threadpool_limits(2):
        softxent.set_num_threads(3)
        assert softxent.get_num_threads() == 2
    assert softxent.get_num_threads() == 3
    """
    run(code, tmp_path, OMP_NUM_THREADS="4")


@needs_openmp
@needs_proc
def test_calls_at_the_same_time_share_the_threads(tmp_path):
    """64 Python threads may each use 8 OpenMP threads, but together they never use 512."""
    code = """
    import threading
    expected, most, stop = loss_and_grad(8), 0, threading.Event()
    failures = []
    def work():
        while not stop.is_set():
            if not same(loss_and_grad(8), expected):
                failures.append(1)
    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    import time
    end = time.monotonic() + 3
    while time.monotonic() < end:
        most = max(most, len(os.listdir("/proc/self/task")))
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert most < 64 + 100, most
    """
    run(code, tmp_path)


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL, and cannot do without"
)
def test_python_without_a_gil_stays_so_and_threads_run_at_once(tmp_path):
    code = """
    import sys, threading
    assert not sys._is_gil_enabled()
    expected, failures = loss_and_grad(), []
    def work():
        for n_threads in (1, 2, 3) * 20:
            if not same(loss_and_grad(n_threads), expected):
                failures.append(n_threads)
    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    """
    run(code, tmp_path)


# ---- Interruption, memory, interpreters ----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C there")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_ends_a_long_call(n_threads, tmp_path):
    """The call has 2^36 logits, which share a few elements, and takes many seconds. The last loss is not written."""
    code = f"""
    import signal, threading
    logits = np.broadcast_to(z.reshape(-1)[:65536], (2**20, 65536))
    labels, losses = np.broadcast_to(np.int8(1), 2**20), np.full(2**20, np.nan, "f4")
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        softxent.cross_entropy(logits, labels, reduction="none", out=losses, n_threads={n_threads})
    except KeyboardInterrupt:
        print("interrupted")
    assert np.isfinite(losses[0]) and np.isnan(losses[-1])
    assert np.isfinite(loss_and_grad()[0])
    """
    assert run(code, tmp_path) == "interrupted\n"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by Linux's means")
def test_memory_that_cannot_be_had_is_a_memory_error(tmp_path):
    code = """
    import resource
    before, out = z.copy(), np.full_like(z, 7)
    many, labels = np.broadcast_to(z[0], (10**6, 100)), np.zeros(10**6, "i1")  # 400 MB, were they all there
    loss_and_grad()  # the threads have their stacks by now
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, used + 2**24))
    for call in (
        lambda: softxent.cross_entropy_and_grad(many, labels),
        lambda: softxent.cross_entropy_grad_hess(many, labels),
        lambda: softxent.softmax(many),
        lambda: softxent.entropy_and_grad(many),
        lambda: softxent.kl_divergence_and_grad(many, many, target_logits=True),
        lambda: softxent.softmax_jacobian(many[:10**4]),
    ):
        try:
            call()
        except MemoryError:
            continue
        raise AssertionError("it had the memory")
    assert np.array_equal(z, before) and (out == 7).all()
    softxent.cross_entropy_and_grad(z, y, out=out)  # needs none
    """
    run(code, tmp_path)


def test_a_subinterpreter_works_or_refuses(tmp_path):
    code = """
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    interpreter = interpreters.create()
    try:
        failure = interpreters.run_string(interpreter, "import softxent; softxent.softmax([[1.0, 2.0]])")
    except interpreters.RunFailedError as error:
        failure = error
    # NumPy before 2.1 or so warns, which is an error here; later ones refuse, if need be.
    assert failure is None or "ImportError" in str(failure) or "not properly support" in str(failure), failure
    assert np.isfinite(loss_and_grad()[0])
    """
    if sys.version_info >= (3, 13):
        code = code.replace("except interpreters.RunFailedError as error", "except RuntimeError as error")
    run(code, tmp_path)
