"""Declares the libraries that a repaired wheel bundles: their licences in its metadata, the texts beside them.

    python tools/declare_bundled.py FOLDER      # of repaired wheels, which are changed in place

auditwheel, delocate and delvewheel copy a library into the wheel, and say nothing of its licence. A wheel without one
stays as it is: no text of a licence goes where it does not apply. Exit status 1 for a library that is not known here.
The standard library alone: it runs where wheels are built.
"""

import base64
import csv
import hashlib
import io
import re
import sys
import zipfile
from pathlib import Path

LICENCES = Path(__file__).resolve().parent.parent / "licenses"

# The SPDX expression and the texts of each library that a repaired wheel may bundle. licenses/bundled.md describes
# them.
BUNDLED = {
    "libgomp": ("GPL-3.0-or-later WITH GCC-exception-3.1", ["GPL-3.0.txt", "GCC-exception-3.1.txt"]),
    "libomp": ("Apache-2.0 WITH LLVM-exception", ["Apache-2.0.txt", "LLVM-exception.txt"]),
    "vcomp140": ("LicenseRef-Proprietary", []),
}
LIBRARY = re.compile(r"(?:softxent\.libs|softxent/\.dylibs)/(?P<name>[a-z]+\d*)(-[^/]*)?(\.so[.\d]*|\.dylib|\.dll)")


def bundled_in(names: list[str]) -> list[str]:
    """The libraries among a wheel's files, by their names in BUNDLED."""
    found = {}
    for name in names:
        if re.search(r"\.(so[.\d]*|dylib|dll)$", name) and not name.startswith("softxent/_kernels"):
            match = LIBRARY.fullmatch(name)
            found[name] = match.group("name") if match else None
    if unknown := [name for name, library in found.items() if library not in BUNDLED]:
        sys.exit(f"the licence of {', '.join(unknown)} is not known to {Path(__file__).name}: add it to BUNDLED")
    return sorted({library for library in found.values() if library})


def declared(metadata: str, libraries: list[str], texts: list[str]) -> str:
    """The METADATA of a wheel with the licences of these libraries and the names of their texts."""
    expression = " AND ".join(BUNDLED[library][0] for library in libraries)
    metadata, n = re.subn(r"^(License-Expression: .*)$", rf"\1 AND {expression}", metadata, count=1, flags=re.M)
    if n == 0:
        sys.exit("the wheel's METADATA has no License-Expression")
    lines = "".join(f"License-File: licenses/{text}\n" for text in texts)
    return re.sub(r"^(?=License-File: )", lines, metadata, count=1, flags=re.M)


def record(entries: dict[str, bytes], path: str) -> bytes:
    """The list of a wheel's files with their hashes. The list itself is one of the files."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for name, data in entries.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        writer.writerow([name, f"sha256={digest}", len(data)])
    writer.writerow([path, "", ""])
    return written.getvalue().encode()


def declare(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        entries = {name: archive.read(name) for name in infos}
    libraries = bundled_in(list(entries))
    if not libraries:
        print(f"{wheel.name}: bundles nothing")
        return
    (metadata,) = (name for name in entries if name.endswith(".dist-info/METADATA"))
    folder = metadata.rpartition("/")[0]
    texts = ["bundled.md", *(text for library in libraries for text in BUNDLED[library][1])]
    entries[metadata] = declared(entries[metadata].decode(), libraries, texts).encode()
    for text in texts:
        name = f"{folder}/licenses/licenses/{text}"
        entries[name] = (LICENCES / text).read_bytes()
        infos[name] = zipfile.ZipInfo(name, infos[metadata].date_time)
        infos[name].external_attr = infos[metadata].external_attr
    path = f"{folder}/RECORD"
    entries.pop(path)
    entries[path] = record(entries, path)
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in entries.items():
            archive.writestr(infos[name], data, zipfile.ZIP_DEFLATED, 9)
    print(f"{wheel.name}: bundles {', '.join(libraries)}")


def main() -> None:
    wheels = sorted(Path(sys.argv[1]).glob("*.whl"))
    if not wheels:
        sys.exit(f"{sys.argv[1]} has no wheel")
    for wheel in wheels:
        declare(wheel)


if __name__ == "__main__":
    main()
