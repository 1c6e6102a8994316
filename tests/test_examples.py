"""The programs of examples/, each built against the installed package if it must be, and run; and what the package has
for them.

A tool that is not there is a test that is skipped, by the tool's name.
"""

import importlib.metadata
import importlib.resources
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import softxent
from softxent import _kernels

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the compiler's arguments here are those of Unix")


def need(tool):
    path = shutil.which(tool, path=os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]))
    return path or pytest.skip(f"{tool} is not installed")


def run(*command, cwd, **environment):
    env = {**os.environ, **environment}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def config(*flags):
    return run(sys.executable, "-m", "softxent", "config", *flags, cwd=EXAMPLES).split()


def build(source, folder, *flags, compiler=None):
    program, found = folder / "program", config("--cflags", "--libs")
    run(compiler or need("cc"), *flags, EXAMPLES / source, *found, "-pthread", "-lm", "-o", program, cwd=folder)
    return program


# ---- The examples ------------------------------------------------------------------------------------------------


def test_c_batch_on_threads(tmp_path):
    assert re.fullmatch(r"mean loss 6\.9\d+\n", run(build("c/batch.c", tmp_path, "-std=gnu11", "-O2"), cwd=tmp_path))


def test_c_training_of_a_classifier(tmp_path):
    with (importlib.resources.files("softxent.data") / "digits.npz").open("rb") as file:
        digits = dict(np.load(file))
    np.c_[digits["images"] / 16, digits["labels"]].astype("f4").tofile(tmp_path / "digits.f32")
    printed = run(build("c/train.c", tmp_path, "-std=gnu11", "-O2"), "digits.f32", cwd=tmp_path)
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", printed)]
    assert losses[0] == pytest.approx(np.log(10), abs=1e-4)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5


def test_c_classes_in_shards(tmp_path):
    assert "mean loss 6.9" in run(build("c/shards.c", tmp_path, "-std=gnu11", "-O2"), cwd=tmp_path)


def test_cpp_batch(tmp_path):
    printed = run(build("cpp/batch.cpp", tmp_path, "-std=c++20", "-O2", compiler=need("c++")), cwd=tmp_path)
    assert "mean loss 7." in printed
    assert "refused: a label is not a class" in printed


def test_cmake_project(tmp_path):
    cmake = need("cmake")
    (cmakedir,) = config("--cmakedir")
    run(cmake, "-S", EXAMPLES / "cmake", "-B", tmp_path, f"-Dsoftxent_DIR={cmakedir}", cwd=tmp_path)
    run(cmake, "--build", tmp_path, cwd=tmp_path)
    assert "mean loss 6.9" in run(tmp_path / "batch", cwd=tmp_path)


def test_makefile_with_pkg_config(tmp_path):
    need("pkg-config")
    shutil.copytree(EXAMPLES / "c", tmp_path / "c")
    shutil.copytree(EXAMPLES / "makefile", tmp_path / "makefile")
    (folder,) = config("--pkgconfigdir")
    run(need("make"), cwd=tmp_path / "makefile", PKG_CONFIG_PATH=folder)
    assert "mean loss 6.9" in run("./batch", cwd=tmp_path / "makefile")


def losses_are_those_of_the_package(folder):
    code = """
        import numpy as np, losses, softxent
        z, y = np.random.default_rng(0).standard_normal((1000, 30)), np.arange(1000) % 30
        assert (losses.losses(z, y) == softxent.cross_entropy(z, y, reduction="none")).all()
        try:
            losses.losses(z, y + 1)
        except ValueError as error:
            print(error)
    """
    return run(sys.executable, "-c", "if 1:" + code, cwd=folder) == "a label is no class\n"


def test_cython_module_with_its_own_prange(tmp_path):
    pytest.importorskip("Cython")
    shutil.copytree(EXAMPLES / "cython", tmp_path, dirs_exist_ok=True)
    run(sys.executable, "setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path)
    assert losses_are_those_of_the_package(tmp_path)


@pytest.mark.parametrize(
    ("back_end", "tools"),
    [("scikit-build-core", ["scikit_build_core"]), ("meson-python", ["mesonpy", "pkgconf"])],
)
def test_cython_module_by_a_build_back_end(back_end, tools, tmp_path):
    for module in ["pip", "Cython", *tools]:
        pytest.importorskip(module)
    for folder in ("cython", back_end):
        shutil.copytree(EXAMPLES / folder, tmp_path / folder)
    environment = {
        "PATH": os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]),
        "PKG_CONFIG": "pkgconf-pypi",
    }
    install = ["-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index", "--target", tmp_path]
    run(sys.executable, *install, tmp_path / back_end, cwd=tmp_path, **environment)
    assert losses_are_those_of_the_package(tmp_path)


def test_ctypes(tmp_path):
    assert "refused: a label is not a class" in run(sys.executable, EXAMPLES / "ctypes/loss.py", cwd=tmp_path)


def test_numba(tmp_path):
    pytest.importorskip("numba")
    assert "mean loss" in run(sys.executable, EXAMPLES / "numba/loss.py", cwd=tmp_path)


@pytest.mark.parametrize("program", sorted((EXAMPLES / "python").glob("*.py")), ids=lambda program: program.stem)
def test_python_recipes_hold_what_they_check(program, tmp_path):
    printed = run(sys.executable, "-W", "error", program, cwd=tmp_path)
    assert printed.count("\n") == 1


# ---- What the package has for them --------------------------------------------------------------------------------


def test_the_header_compiles_as_c_and_as_cpp_with_every_warning(tmp_path):
    (tmp_path / "header.c").write_text("#include <softxent.h>\nint main(void) { return 0; }\n")
    for compiler, standard in (("cc", "-std=c11"), ("c++", "-std=c++17")):
        language = "c" if compiler == "cc" else "c++"
        run(need(compiler), standard, *WARNINGS, *config("--cflags"), "-x", language, "header.c", "-c", cwd=tmp_path)


def test_the_c_files_compile_without_flags(tmp_path):
    source = EXAMPLES.parent / "cext"
    shutil.copytree(source / "src", tmp_path / "src")
    shutil.copy(source / "include/softxent.h", tmp_path / "src")
    run(need("cc"), "-c", *sorted((tmp_path / "src").glob("*.c")), cwd=tmp_path / "src")


def test_only_softxent_symbols_are_exported(tmp_path):
    nm = need("nm")
    static = run(nm, "-g", "--defined-only", f"{softxent.get_library_dir()}/libsoftxent.a", cwd=tmp_path)
    names = set(re.findall(r" [A-Z] (\w+)$", static, re.M))
    assert {name for name in names if not name.lstrip("_").startswith("softxent_")} == set()
    if sys.platform == "linux":
        module = run(nm, "-D", "--defined-only", _kernels.__file__, cwd=tmp_path)
        names = set(re.findall(r" [A-Z] (\w+)$", module, re.M))
        assert {name for name in names if not name.startswith("softxent_")} == {"PyInit__kernels"}


def test_the_c_library_by_cmake_alone(tmp_path):
    cmake = need("cmake")
    run(cmake, "-S", EXAMPLES.parent / "cext", "-B", "library", cwd=tmp_path)
    run(cmake, "--build", "library", "-j2", cwd=tmp_path)
    run(cmake, "--install", "library", "--prefix", tmp_path / "prefix", cwd=tmp_path)
    root = f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}"
    run(cmake, "-S", EXAMPLES / "cmake", "-B", "program", root, cwd=tmp_path)
    run(cmake, "--build", "program", cwd=tmp_path)
    assert "mean loss 6.9" in run(tmp_path / "program/batch", cwd=tmp_path)


def test_the_versions_agree():
    header = pathlib.Path(softxent.get_include(), "softxent.h").read_text()
    assert re.search(r'SOFTXENT_VERSION "(.*)"', header).group(1) == softxent.__version__


def test_build_back_ends_find_the_files():
    points = importlib.metadata.entry_points()
    (root,) = (point for point in points.select(group="cmake.root") if point.name == "softxent")
    assert pathlib.Path(importlib.resources.files(root.value), "lib/cmake/softxent/softxentConfig.cmake").exists()
    (folder,) = (point for point in points.select(group="pkg_config") if point.name == "softxent")
    assert any(
        (part / "softxent.pc").exists() for part in map(pathlib.Path, importlib.import_module(folder.value).__path__)
    )
