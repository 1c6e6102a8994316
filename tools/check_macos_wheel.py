"""Whether delocate makes a macOS wheel that brings its OpenMP library along: shown without a Mac.

    python tools/check_macos_wheel.py

The wheel is built by setup.py for 64-bit Arm with zig, which compiles and links for macOS everywhere, and repaired by
delocate. The flags are those of cibuildwheel in pyproject.toml. tools/build_libomp.sh builds the OpenMP library, of a
stand-in for LLVM's source: nothing of it is run, but what CMake makes of its name is what counts. Needs LLVM's
llvm-otool, llvm-install-name-tool and llvm-lipo (Debian: llvm). Exit status 1 where a user's machine would not find
the library.
"""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MACOS = PROJECT["tool"]["cibuildwheel"]["macos"]
PREFIX = "/tmp/libomp"  # the path in pyproject.toml; here it is a folder of our own

# The functions that a program calls if it was compiled with -fopenmp.
STAND_IN_C = """
#define FUNCTION(name) int name(void) { return 0; }
FUNCTION(omp_get_max_threads) FUNCTION(omp_in_parallel) FUNCTION(__kmpc_barrier) FUNCTION(__kmpc_fork_call)
FUNCTION(__kmpc_global_thread_num) FUNCTION(__kmpc_push_num_threads) FUNCTION(__kmpc_dispatch_init_8)
FUNCTION(__kmpc_dispatch_next_8) FUNCTION(__kmpc_dispatch_deinit)
"""
STAND_IN_HEADER = """
extern int omp_get_max_threads(void);
extern int omp_in_parallel(void);
"""
STAND_IN_CMAKE = """
cmake_minimum_required(VERSION 3.13)
project(openmp C)
add_library(omp SHARED omp.c)
install(TARGETS omp LIBRARY DESTINATION lib)
install(FILES omp.h DESTINATION include)
"""
TOOLCHAIN = """
set(CMAKE_SYSTEM_NAME Darwin)
set(CMAKE_SYSTEM_PROCESSOR arm64)
"""


def run(*command: object, **environment: str) -> str:
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    done = subprocess.run(
        words, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nexit status {done.returncode}: {' '.join(words)}")
    return done.stdout


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def program(path: Path, command: str) -> None:
    write(path, f"#!/bin/sh\n{command}\n").chmod(0o755)


def llvm(tool: str) -> str:
    """The newest version of one of LLVM's tools, whether its name has a version or not."""
    found = [path for folder in os.get_exec_path() for path in glob.glob(f"{folder}/llvm-{tool}*")]
    if not found:
        sys.exit(f"there is no llvm-{tool}: install LLVM's tools (Debian: apt-get install llvm)")
    return max(found, key=lambda path: int((re.findall(r"-(\d+)$", path) or ["999"])[0]))


def toolchain(work: Path) -> dict[str, str]:
    """Programs under the names that a Mac has for them, and the settings with which CMake and setuptools use them."""
    venv.create(work / "tools", with_pip=True)
    python = work / "tools/bin/python"
    requirements = [*PROJECT["dependency-groups"]["macos-check"], *PROJECT["build-system"]["requires"]]
    run(python, "-m", "pip", "install", "--quiet", *requirements)
    target = f"aarch64-macos.{MACOS['environment']['MACOSX_DEPLOYMENT_TARGET']}"
    programs = work / "bin"
    program(programs / "cc", f'exec {python} -m ziglang cc -target {target} "$@"')
    program(programs / "ar", f'exec {python} -m ziglang ar "$@"')
    program(programs / "ranlib", f'exec {python} -m ziglang ranlib "$@"')
    # delocate passes -arch all -m ...; some versions of LLVM's tool do not have -m, which is for archives.
    program(programs / "otool", f'[ "$3" != -m ] || shift 3\nexec {llvm("otool")} "$@"')
    program(programs / "install_name_tool", f'exec {llvm("install-name-tool")} "$@"')
    program(programs / "lipo", f'exec {llvm("lipo")} "$@"')
    program(programs / "codesign", "exit 0")  # only a Mac needs signatures
    program(programs / "shasum", "exit 1")  # nothing is downloaded
    # The headers of this NumPy were built for this system, and say that it has one.
    write(work / "include/endian.h", "#include <machine/endian.h>\n")
    # Python's headers, with this machine's configuration. Debian has one for each target, but none for a Mac.
    headers = Path(sysconfig.get_path("include"))
    shutil.copytree(headers, work / "include", dirs_exist_ok=True)
    configuration = headers.parent / str(sysconfig.get_config_var("MULTIARCH")) / headers.name / "pyconfig.h"
    if configuration.exists():
        shutil.copy(configuration, work / "include")
    return {
        "PATH": os.pathsep.join([str(programs), str(python.parent), os.environ["PATH"]]),
        "ZIG_GLOBAL_CACHE_DIR": str(work / "cache"),
        "CMAKE_TOOLCHAIN_FILE": str(write(work / "toolchain.cmake", TOOLCHAIN)),
        "CC": str(programs / "cc"),
        "AR": str(programs / "ar"),
        "ARFLAGS": "rcs",
        "LDSHARED": f"{programs / 'cc'} -shared -undefined dynamic_lookup",
        "_PYTHON_HOST_PLATFORM": f"macosx-{MACOS['environment']['MACOSX_DEPLOYMENT_TARGET']}-arm64",
    }


def build(work: Path, tools: dict[str, str]) -> Path:
    """The wheel as cibuildwheel would hand it to delocate."""
    for name, text in (("omp.c", STAND_IN_C), ("omp.h", STAND_IN_HEADER), ("CMakeLists.txt", STAND_IN_CMAKE)):
        write(work / "llvm/openmp" / name, text)
    before = shlex.split(MACOS["before-all"].replace(PREFIX, str(work / "libomp")))
    flags = {name: value.replace(PREFIX, str(work / "libomp")) for name, value in MACOS["environment"].items()}
    flags["CFLAGS"] += f" -I{work / 'include'}"
    run(before[0], ROOT / before[1], *before[2:], work / "llvm", **tools, **flags)
    # pip would install a Mac's NumPy for the build, and that does not run here.
    run("python", "-m", "build", "--no-isolation", "--outdir", work / "dist", ROOT, **tools, **flags)
    return only(work / "dist", "*.whl")


def check(wheel: Path, work: Path, tools: dict[str, str]) -> None:
    paths = {"dest_dir": work / "repaired", "wheel": wheel, "project": ROOT, "delocate_archs": "arm64"}
    for command in MACOS["repair-wheel-command"]:
        run(*(word.format(**paths) for word in shlex.split(command)), **tools)
    with zipfile.ZipFile(work / "repaired" / wheel.name) as archive:
        archive.extractall(work / "wheel")
    module = only(work / "wheel/softxent", "_kernels*.so")
    needed = re.findall(r"^\t(\S+)", run("otool", "-L", module, **tools), re.M)
    print("needs", *needed)
    (libomp,) = (name for name in needed if "libomp" in name)
    if not (bundled := Path(libomp.replace("@loader_path", str(module.parent)))).is_file():
        sys.exit(f"the module looks for {libomp}, which is not in the wheel: {bundled}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        tools = toolchain(work)
        check(build(work, tools), work, tools)
    print("the macOS wheel brings libomp, and its module finds it")


if __name__ == "__main__":
    main()
