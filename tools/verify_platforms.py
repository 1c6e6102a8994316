"""The C library and its tests on other processors and systems: cross-compiled with zig, run under emulators.

    pip install ziglang; apt-get install qemu-user wine64 nodejs... (whatever is there is used)
    python tools/verify_platforms.py [TARGET ...] [--markdown FILE]

Each target is compiled, and its tests run where there is something to run them; what is missing is named. Exit status 1
if anything that could be tried failed. The Python tests of the kernels run on other x86_64 processors, with the
interpreter that runs this: softxent[test] must be installed there.
"""

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ZIG = [sys.executable, "-m", "ziglang", "cc"]
# Debian has this compiler's libraries in /usr/lib.
WINE = next(filter(shutil.which, ("wine64", "/usr/lib/wine/wine64", "wine")), "wine")
WASI = f"node --no-warnings {shlex.quote(str(ROOT / 'tools/run_wasi.mjs'))}"


@dataclass(frozen=True)
class Target:
    """A platform: its name for people, its name for zig, and the command that runs a program. Without a command,
    programs are only compiled.
    """

    name: str
    triple: str
    emulator: str | None
    flags: str = ""


TARGETS = [
    Target("aarch64 Linux", "aarch64-linux-musl", "qemu-aarch64"),
    Target("riscv64 Linux", "riscv64-linux-musl", "qemu-riscv64"),
    Target("s390x Linux, big-endian", "s390x-linux-musl", "qemu-s390x"),
    Target("i386 Linux", "x86-linux-musl", "qemu-i386"),
    Target("ppc64le Linux", "powerpc64le-linux-musl", "qemu-ppc64le"),
    Target("armhf Linux", "arm-linux-musleabihf", "qemu-arm"),
    Target("x86_64 Linux without AVX", "x86_64-linux-musl", "qemu-x86_64 -cpu Nehalem"),
    # qemu reads all lanes of a masked load
    Target("x86_64 Linux with AVX2", "x86_64-linux-musl", "qemu-x86_64 -cpu max", "-DNO_GUARDS"),
    Target("Python on x86_64 without AVX", "python-scalar", "qemu-x86_64 -cpu Nehalem"),
    Target("Python on x86_64 with AVX2", "python-avx2", "qemu-x86_64 -cpu max"),
    Target("x86_64 Windows", "x86_64-windows-gnu", WINE),
    Target("wasm32 WASI", "wasm32-wasi", WASI, "-Wl,-z,stack-size=8388608"),
    Target("x86_64 macOS", "x86_64-macos", None),
    Target("arm64 macOS", "aarch64-macos", None),
    Target("arm64 Windows", "aarch64-windows-gnu", None),
]

# These tests exercise the kernels in a few minutes. They run without guard pages, as above.
PYTHON_TESTS = ["tests/test_edges.py", "tests/test_options.py", "tests/test_half.py"]


@dataclass(frozen=True)
class Result:
    compiled: str
    ran: str
    tests: str
    log: str = ""

    @property
    def failed(self) -> bool:
        return self.compiled == "no" or self.ran == "no" or not self.tests.endswith(("0 failed", "-"))


def compiles(target: Target, objects: Path) -> str:
    """Compile every source into the folder, without flags of its own. Return the compiler's messages if it fails."""
    for source in sorted((ROOT / "cext/src").glob("*.c")):
        command = [*ZIG, "-target", target.triple, "-O2", "-std=c11", f"-I{ROOT / 'cext/include'}", "-c", source]
        done = subprocess.run([*command, "-o", objects / f"{source.stem}.o"], capture_output=True, text=True)
        if done.returncode:
            return done.stderr
    return ""


def verify_python(target: Target) -> Result:
    """Run the Python tests. The instruction set must be the one in the target's name."""
    missing = [name for name in ("softxent", "pytest") if not importlib.util.find_spec(name)]
    emulator = target.emulator.split()
    if not shutil.which(emulator[0]):
        missing.append(emulator[0])
    if missing:
        return Result("-", f"{missing[0]} is missing", "-")
    environment = {name: value for name, value in os.environ.items() if name != "SOFTXENT_ISA"}
    environment["OPENBLAS_CORETYPE"] = "Nehalem"  # under qemu OpenBLAS's own choice dies of SIGILL

    def python(*arguments: str) -> subprocess.CompletedProcess:
        command = [*emulator, sys.executable, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    done = python("-c", "from softxent import _kernels; print(_kernels.isa_in_use())")
    if f"python-{done.stdout.strip()}" != target.triple:
        return Result("-", "no", "-", done.stdout + done.stderr)
    # -n 0, because processes that a test starts are not emulated.
    done = python("-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *PYTHON_TESTS)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)\b", done.stdout[-200:])}
    passed, skipped = counts.pop("passed", 0), counts.pop("skipped", 0)
    tests = f"{skipped} skipped, " * bool(skipped) + f"{passed} passed, {sum(counts.values())} failed"
    return Result("-", "yes" if done.returncode in (0, 1) else "no", tests, done.stdout + done.stderr)


def verify(target: Target) -> Result:
    if target.triple.startswith("python-"):
        return verify_python(target)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return verify_library(target, Path(folder))


def verify_library(target: Target, folder: Path) -> Result:
    objects = folder / "objects"
    objects.mkdir()
    if problem := compiles(target, objects):
        return Result("no", "-", "-", problem)
    if target.emulator is None:
        return Result("yes", "not tried", "-")
    tool = target.emulator.split()[0]
    if not shutil.which(tool):
        return Result("yes", f"{tool} is missing", "-")
    compiler = shlex.join([*ZIG, "-target", target.triple])
    environment = {**os.environ, "CC": compiler, "RUN": target.emulator, "CFLAGS": target.flags}
    environment |= {"OBJECTS": str(objects), "WINEPREFIX": str(folder / "wine")}
    # wine then prints no messages of its own, and starts no installer and no debugger.
    environment |= {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml,winedbg.exe="}
    done = subprocess.run(["sh", ROOT / "cext/tests/run.sh"], env=environment, capture_output=True, text=True)
    counts = re.search(r"^(\d+ passed, \d+ failed)\s*\Z", done.stdout, re.M)
    return Result("yes", "yes" if counts else "no", counts.group(1) if counts else "-", done.stdout + done.stderr)


def main() -> int:
    names = [target.triple for target in TARGETS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"zig's names, or python-... (all): {', '.join(names)}"
    )
    parser.add_argument("--jobs", type=int, default=2, help="so many at a time (2)")
    parser.add_argument("--markdown", metavar="FILE", help="also write the table there")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(names):
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}")
    wanted = [target for target in TARGETS if not arguments.targets or target.triple in arguments.targets]
    lines = ["| target | compiled | ran | tests |", "| --- | --- | --- | --- |"]
    print(*lines, sep="\n", flush=True)
    failures = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for target, result in zip(wanted, pool.map(verify, wanted), strict=True):
            emulator = target.emulator.replace(str(ROOT) + "/", "") if target.emulator else ""
            ran = f"{result.ran}, {emulator}" if result.ran == "yes" else result.ran
            lines.append(f"| {target.name} | {result.compiled} | {ran} | {result.tests} |")
            print(lines[-1], flush=True)
            if result.failed:
                failures.append(f"\n--- {target.name}\n{result.log[-6000:]}")
    print(*failures, sep="\n")
    if arguments.markdown:
        Path(arguments.markdown).write_text("\n".join(lines) + "\n")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
