"""Builds the wheel that users would get: an sdist, a wheel from the sdist, repaired, checked, and tested.

    python tools/build_wheel.py [--out FOLDER] [--tests ARGUMENT ...]

The tests run on the oldest NumPy that the wheel allows, where there is neither a compiler nor an OpenMP library. This
program is for Linux, which has auditwheel. The flags are those of cibuildwheel in pyproject.toml. The exit status is 1
at the first thing that is wrong.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 1_500_000  # a tenth more than today: debug information would make it twenty times as large
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINUX = PROJECT["tool"]["cibuildwheel"]["linux"]


def say(what: str) -> None:
    print(f"\n--- {what}", flush=True)


def run(*command: object, cwd: Path = ROOT, **environment: str) -> None:
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    done = subprocess.run(words, cwd=cwd, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"exit status {done.returncode}: {' '.join(words)}")


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def environment(folder: Path, *requirements: object) -> Path:
    """The Python of a fresh virtual environment with what is required."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    if requirements:
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    return python


def build(tools: Path, work: Path) -> Path:
    """Build the wheel from the files of an sdist alone, and repair it."""
    say("sdist")
    run(tools, "-m", "build", "--sdist", "--outdir", work, ROOT)
    sdist = only(work, "*.tar.gz")
    if (ROOT / ".git").exists():
        run(tools.with_name("check-sdist"), "--no-isolation")
    say("wheel, of the sdist")
    shutil.unpack_archive(sdist, work)
    run(tools, "-m", "build", "--wheel", "--outdir", work, only(work, "softxent-*/"), **LINUX["environment"])
    say("repaired")
    check_plain(only(work, "*.whl"))
    path = f"{tools.parent}{os.pathsep}{os.environ['PATH']}"
    paths = {"dest_dir": work / "repaired", "wheel": only(work, "*.whl"), "project": only(work, "softxent-*/")}
    for command in LINUX["repair-wheel-command"]:
        run(*(word.format(**paths) for word in shlex.split(command)), PATH=path)
    return only(work / "repaired", "*.whl")


def check_plain(wheel: Path) -> None:
    """Check that a wheel that bundles nothing has no licence of a library that it might bundle."""
    with zipfile.ZipFile(wheel) as archive:
        names, metadata = archive.namelist(), only_metadata(archive)
    if foreign := [name for name in names if re.search(r"GPL|GCC|LLVM|Apache", name)]:
        sys.exit(f"the wheel bundles nothing yet, but has {', '.join(foreign)}")
    if f"\nLicense-Expression: {PROJECT['project']['license']}\n" not in metadata:
        sys.exit("the wheel's licence is not that of pyproject.toml")


def only_metadata(archive: zipfile.ZipFile) -> str:
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return archive.read(name).decode()


def check(tools: Path, wheel: Path, sdist: Path) -> None:
    say("checks")
    run(tools.with_name("auditwheel"), "show", wheel)
    run(tools.with_name("twine"), "check", "--strict", wheel, sdist)
    run(tools.with_name("check-wheel-contents"), wheel)
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size} bytes")
    if size > MOST_BYTES:
        sys.exit(f"the wheel has {size} bytes, more than {MOST_BYTES}")
    if "manylinux" not in wheel.name:
        sys.exit(f"{wheel.name} has no manylinux tag")
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder)
        check_module(only(Path(folder, "softxent"), "_kernels*.so"))
        check_notices(only(Path(folder), "softxent-*.dist-info"), only_metadata(archive))


def check_module(module: Path) -> None:
    """Check the module's exported symbols, the libraries that it needs, and that it is hardened."""

    def printed(*command: object) -> str:
        return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout

    exported = set(re.findall(r" [A-Z] (\w+)$", printed("nm", "-D", "--defined-only", module), re.M))
    if odd := {name for name in exported if name != "PyInit__kernels" and not name.startswith("softxent_")}:
        sys.exit(f"the module exports {', '.join(sorted(odd))}")
    dynamic, segments = printed("readelf", "-dW", module), printed("readelf", "-lW", module)
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    print("needs", *needed)
    if not any(re.fullmatch(r"libgomp-[0-9a-f]+\.so.*", name) for name in needed):
        sys.exit("the module does not use a bundled libgomp")
    if "GNU_RELRO" not in segments or not re.search(r"BIND_NOW|FLAGS.*\bNOW\b", dynamic):
        sys.exit("the module has no full RELRO")
    if "__stack_chk_fail" not in printed("nm", "-D", "--undefined-only", module):
        sys.exit("the module has no stack protector")


def check_notices(folder: Path, metadata: str) -> None:
    """Check that the SBOM and the metadata name what is bundled, with all texts that its licence asks for."""
    sbom = folder / "sboms/auditwheel.cdx.json"
    if not sbom.exists():
        sys.exit("the wheel has no SBOM: is libgomp from a package, and auditwheel new enough?")
    components = json.loads(sbom.read_text())["components"]
    print("bundled", *(f"{part['name']} {part['version']}" for part in components if part["name"] != "softxent"))
    if not any("gomp" in part["name"] for part in components):
        sys.exit("the SBOM does not name libgomp")
    for text in ["LICENSE", "licenses/bundled.md", "licenses/GPL-3.0.txt", "licenses/GCC-exception-3.1.txt"]:
        if not (folder / "licenses" / text).exists() or f"\nLicense-File: {text}\n" not in metadata:
            sys.exit(f"the wheel lacks {text}, or does not name it")
    expression = f"{PROJECT['project']['license']} AND GPL-3.0-or-later WITH GCC-exception-3.1"
    if f"\nLicense-Expression: {expression}\n" not in metadata:
        sys.exit(f"the wheel's licence is not {expression}")


def test(wheel: Path, work: Path, arguments: list[str]) -> None:
    """Test the wheel with nothing on the PATH but the environment's own programs."""
    say("tests of the installed wheel on the oldest NumPy, without a compiler")
    oldest = [requirement.replace(">=", "==") for requirement in PROJECT["project"]["dependencies"]]
    python = environment(work / "test", f"{wheel}[test]", *oldest)
    for name in ("tests", "pyproject.toml"):
        source, copy = ROOT / name, work / "run" / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    path = {"PATH": str(python.parent), "PYTHONSAFEPATH": "1"}
    if found := [name for name in ("cc", "gcc", "clang") if shutil.which(name, path=path["PATH"])]:
        sys.exit(f"on the PATH there is {', '.join(found)}")
    run(python, "-m", "softxent", "demo", cwd=work / "run", **path)
    run(python, "-m", "pytest", "-q", "--ignore=tests/test_examples.py", *arguments, cwd=work / "run", **path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="where sdist and wheel are kept")
    parser.add_argument("--tests", nargs=argparse.REMAINDER, default=[], help="arguments for pytest")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tools = environment(
            work / "tools", *PROJECT["dependency-groups"]["wheel-check"], *PROJECT["build-system"]["requires"]
        )
        wheel = build(tools, work)
        check(tools, wheel, only(work, "*.tar.gz"))
        test(wheel, work, arguments.tests)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            for path in (wheel, only(work, "*.tar.gz")):
                shutil.copy(path, arguments.out)
    print("\nthe wheel is as it should be")


if __name__ == "__main__":
    main()
