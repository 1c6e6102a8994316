"""The number of threads: who decides it, and that more than one really run."""

import os
import subprocess
import sys

import pytest

import softxent
from softxent import _kernels, _threads


@pytest.fixture
def fresh(monkeypatch):
    """A setting as in a new process, with an empty environment."""
    monkeypatch.setattr(_threads, "_default", None)
    monkeypatch.setattr(_threads, "_chosen", None)
    monkeypatch.delenv("SOFTXENT_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return monkeypatch


def test_what_is_set_is_what_is_used(fresh):
    softxent.set_num_threads(5)
    assert softxent.get_num_threads() == 5
    assert _threads.threads_for(None) == 5
    assert _threads.threads_for(3) == 3
    softxent.set_num_threads(None)
    assert _threads.num_threads_and_reason()[1] != "set_num_threads"


def test_a_setting_lasts_as_long_as_its_with_block(fresh):
    softxent.set_num_threads(5)
    with softxent.set_num_threads(3):
        assert _threads.threads_for(None) == 3
        with softxent.set_num_threads(2), softxent.set_num_threads(None):
            assert _threads.num_threads_and_reason()[1] != "set_num_threads"
        assert _threads.threads_for(None) == 3
    assert _threads.threads_for(None) == 5
    with pytest.raises(ZeroDivisionError), softxent.set_num_threads(4):
        assert 1 / 0
    assert _threads.threads_for(None) == 5


def test_absurd_numbers_of_threads_are_not_started(fresh):
    """If the system has no more threads to give, the OpenMP runtime ends the process."""
    assert _threads.threads_for(100_000) == _threads.MOST_THREADS
    softxent.set_num_threads(100_000)
    assert _threads.threads_for(None) == _threads.MOST_THREADS


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SOFTXENT_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4"}, 4),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"SOFTXENT_NUM_THREADS": "2", "OMP_NUM_THREADS": "4"}, 2),
        ({"SOFTXENT_NUM_THREADS": "many", "OMP_NUM_THREADS": "4"}, 4),
    ],
)
def test_the_environment_decides_the_default(environment, expected, fresh):
    for name, value in environment.items():
        fresh.setenv(name, value)
    assert softxent.get_num_threads() == expected


@pytest.mark.parametrize("value", ["", "0", "-2", "x", "1.5"])
def test_an_environment_that_is_no_number_is_passed_over(value, fresh):
    fresh.setenv("OMP_NUM_THREADS", value)
    assert _threads.num_threads_and_reason()[1] != "OMP_NUM_THREADS"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no CPU affinity here")
def test_the_cpu_affinity_is_respected():
    pin = "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])"
    code = f"import os, softxent; {pin}; print(softxent.get_num_threads())"
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "SOFTXENT_NUM_THREADS")}
    printed = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
    assert printed == "1\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_control_groups_quota_is_read(files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _threads._cgroup_quota(tmp_path) == expected


def test_the_quota_limits_the_default(fresh):
    fresh.setattr(_threads, "_cgroup_quota", lambda: 1)
    fresh.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert _threads.num_threads_and_reason() == (1, "control group quota")
    fresh.setattr(_threads, "_default", None)
    fresh.setattr(_threads, "_cgroup_quota", lambda: None)
    assert softxent.get_num_threads() == 4


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
@pytest.mark.parametrize("n_threads", [1, 4])
def test_openmp_really_runs_as_many_threads(n_threads):
    """A large problem runs on as many threads as were asked for. A small one runs on the caller's thread alone."""
    if not _kernels.OPENMP_VERSION:
        pytest.skip("built without OpenMP")
    code = f"""
import os, numpy as np, softxent
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
softxent.cross_entropy(np.zeros((4, 10)), np.zeros(4, int), n_threads={n_threads})
assert count() == before
softxent.cross_entropy(np.zeros((4000, 100)), np.zeros(4000, int), n_threads={n_threads})
assert count() == before + {n_threads} - 1, count()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
