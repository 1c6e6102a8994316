"""Whether a folder holds what a release must publish: the sdist and each wheel, all of the version that the tag names.

    python tools/check_release.py FOLDER [TAG]

cibuildwheel, which must be installed, names the wheels. Without a tag, the versions in the tree are compared with each
other and with the files. If anything is wrong, all of it is printed, and the exit status is 1.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The machines that .github/workflows/wheels.yml has.
PLATFORMS = [
    ("linux", "x86_64"),
    ("linux", "aarch64"),
    ("macos", "x86_64"),
    ("macos", "arm64"),
    ("windows", "AMD64"),
    ("windows", "ARM64"),
    ("pyodide", "wasm32"),
]

# The files that state the version, and how.
VERSIONS = {
    "src/softxent/_version.py": r'^__version__ = "(.*)"$',
    "cext/include/softxent.h": r'^#define SOFTXENT_VERSION "(.*)"$',
    "CITATION.cff": r"^version: (.*)$",
    "CHANGELOG.md": r"^## ([\d.]+)",
}

WHEEL = re.compile(r"softxent-(?P<version>[^-]+)-(?P<python>cp\d+)-(?P<abi>cp\d+t?)-(?P<platforms>[^-]+)\.whl")

# The platform tags that PyPI takes, with the release of the system or none: manylinux2014_x86_64, win_amd64.
PLATFORM = re.compile(r"(?P<system>manylinux|musllinux|macosx|win|pyemscripten)(_?\d+(_\d+)?)?_(?P<architecture>\w+)")


def expected_identifiers() -> set[str]:
    """The builds of all platforms, by the names that cibuildwheel gives them: cp314t-musllinux_aarch64."""
    found: set[str] = set()
    for platform, architecture in PLATFORMS:
        command = ["cibuildwheel", "--print-build-identifiers", "--platform", platform, "--archs", architecture, ROOT]
        selected = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        if not selected:
            sys.exit(f"cibuildwheel selects nothing for {platform} {architecture}")
        found.update(selected)
    return found


def identifiers_of(wheel: re.Match[str]) -> set[str]:
    """The names in cibuildwheel of the builds of a wheel. Several of its platform tags may stand for one build."""
    found = set()
    for tag in wheel["platforms"].split("."):
        platform = PLATFORM.fullmatch(tag)
        name = f"{platform['system']}_{platform['architecture']}" if platform else tag
        found.add(f"{wheel['abi']}-{name.replace('pyemscripten', 'pyodide')}")
    return found


def problems(names: list[str], expected: set[str], version: str) -> list[str]:
    """The errors in these files' names."""
    wrong, seen = [], []
    for name in names:
        wheel = WHEEL.fullmatch(name)
        if name == f"softxent-{version}.tar.gz":
            continue
        if not wheel or wheel["version"] != version:
            wrong.append(f"{name} is no file of version {version}")
        else:
            seen += identifiers_of(wheel)
    if f"softxent-{version}.tar.gz" not in names:
        wrong.append(f"softxent-{version}.tar.gz is missing")
    wrong += [f"there is no wheel for {name}" for name in sorted(expected - set(seen))]
    wrong += [f"there is a wheel for {name}, which is not expected" for name in sorted(set(seen) - expected)]
    wrong += [f"there are two wheels for {name}" for name in sorted(set(seen)) if seen.count(name) > 1]
    return wrong


def main() -> None:
    folder, *tag = sys.argv[1:]
    versions = {}
    for path, pattern in VERSIONS.items():
        found = re.search(pattern, (ROOT / path).read_text(encoding="utf-8"), re.M)
        versions[path] = found[1] if found else "nothing"
    version = versions["src/softxent/_version.py"]
    wrong = [f"{path} says {other}, not {version}" for path, other in versions.items() if other != version]
    if tag and tag[0] != f"v{version}":
        wrong.append(f"the tag is {tag[0]}, and the version {version}: the tag must be v{version}")
    names = sorted(path.name for path in Path(folder).iterdir())
    wrong += problems(names, expected_identifiers(), version)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(names)} files of version {version}, as they should be")


if __name__ == "__main__":
    main()
