"""What a release publishes: the files that it must have, their licences, and what the README links to."""

import re
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if (ROOT / "tools").exists():
    import check_release
    import declare_bundled
else:
    pytest.skip("tools/ is not beside the tests of an installed wheel", allow_module_level=True)

EXPECTED = {
    "cp314-manylinux_x86_64",
    "cp313-manylinux_aarch64",
    "cp314t-musllinux_aarch64",
    "cp311-macosx_arm64",
    "cp312-win_amd64",
    "cp314-pyodide_wasm32",
}
NAMES = [
    "softxent-1.2.3.tar.gz",
    "softxent-1.2.3-cp314-cp314-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "softxent-1.2.3-cp313-cp313-manylinux2014_aarch64.manylinux_2_17_aarch64.manylinux_2_28_aarch64.whl",
    "softxent-1.2.3-cp314-cp314t-musllinux_1_2_aarch64.whl",
    "softxent-1.2.3-cp311-cp311-macosx_11_0_arm64.whl",
    "softxent-1.2.3-cp312-cp312-win_amd64.whl",
    "softxent-1.2.3-cp314-cp314-pyemscripten_2026_0_wasm32.whl",
]


def test_the_expected_files_are_a_release():
    assert check_release.problems(NAMES, EXPECTED, "1.2.3") == []


@pytest.mark.parametrize("missing", NAMES)
def test_no_release_lacks_a_file(missing):
    (problem,) = check_release.problems([name for name in NAMES if name != missing], EXPECTED, "1.2.3")
    assert "missing" in problem or "there is no wheel for" in problem


@pytest.mark.parametrize(
    "name",
    [
        "softxent-1.2.3-cp315-cp315-win_amd64.whl",
        "softxent-1.2.3-cp314-cp314-manylinux_2_17_x86_64.whl",
        "softxent-1.2.3-cp314-cp314-linux_x86_64.whl",
        "softxent-1.2.3-cp314-cp314-pyodide_2025_0_wasm32.whl",
        "softxent-1.2.4-cp312-cp312-win_amd64.whl",
        "notes.txt",
    ],
)
def test_no_release_has_a_file_too_many(name):
    assert len(check_release.problems([*NAMES, name], EXPECTED, "1.2.3")) == 1


def test_the_version_is_the_same_wherever_it_is_written():
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in check_release.VERSIONS}
    found = {re.search(pattern, texts[path], re.M)[1] for path, pattern in check_release.VERSIONS.items()}
    assert len(found) == 1


def test_the_classifiers_name_every_python_that_there_are_wheels_for():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, build = settings["project"], settings["tool"]["cibuildwheel"]["build"]
    pythons = sorted({int(re.fullmatch(r"cp3(\d+)t?-\*", selector)[1]) for selector in build})
    named = [re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line) for line in project["classifiers"]]
    assert [int(match[1]) for match in named if match] == pythons
    assert project["requires-python"] == f">=3.{pythons[0]}"


def wheel(folder, library=None):
    """A wheel with only the files that its licence checks read."""
    path = folder / "softxent-1.2.3-cp311-cp311-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("softxent/_kernels.so", b"")
        if library:
            archive.writestr(library, b"")
        archive.writestr(
            "softxent-1.2.3.dist-info/METADATA",
            "Name: softxent\nLicense-Expression: A AND B\nLicense-File: LICENSE\n\nText.\n",
        )
        archive.writestr("softxent-1.2.3.dist-info/RECORD", "")
    return path


@pytest.mark.parametrize(
    ("library", "expression", "texts"),
    [
        ("softxent.libs/libgomp-24e2ab19.so.1.0.0", "GPL-3.0-or-later WITH GCC-exception-3.1", {"GPL-3.0.txt"}),
        ("softxent/.dylibs/libomp.dylib", "Apache-2.0 WITH LLVM-exception", {"Apache-2.0.txt"}),
        ("softxent.libs/vcomp140-1234.dll", "LicenseRef-Proprietary", {"bundled.md"}),
    ],
)
def test_a_wheel_declares_what_it_bundles(tmp_path, library, expression, texts):
    path = wheel(tmp_path, library)
    declare_bundled.declare(path)
    with zipfile.ZipFile(path) as archive:
        metadata = archive.read("softxent-1.2.3.dist-info/METADATA").decode()
        record = archive.read("softxent-1.2.3.dist-info/RECORD").decode()
        names = set(archive.namelist())
    assert f"License-Expression: A AND B AND {expression}\n" in metadata
    for text in texts:
        assert f"License-File: licenses/{text}\n" in metadata
        assert f"softxent-1.2.3.dist-info/licenses/licenses/{text}" in names
    assert {line.split(",")[0] for line in record.splitlines()} == names


def test_a_wheel_that_bundles_nothing_stays_as_it_is(tmp_path):
    path = wheel(tmp_path)
    before = path.read_bytes()
    declare_bundled.declare(path)
    assert path.read_bytes() == before


def test_a_library_whose_licence_is_not_known_is_refused(tmp_path):
    path = wheel(tmp_path, "softxent.libs/libiomp5-1234.so")
    with pytest.raises(SystemExit, match=r"softxent\.libs/libiomp5-1234\.so"):
        declare_bundled.declare(path)


def test_the_readme_links_to_what_an_index_page_can_show():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [*re.findall(r"\]\(([^)]*)\)", text), *re.findall(r"^\[[^]]*\]: (.*)$", text, re.M)]
    assert links
    assert all(link.startswith(("https://", "#")) for link in links)
    ours = re.compile(r"https://github\.com/softxent/softxent/blob/main/(.*)")
    assert all((ROOT / match[1]).exists() for link in links if (match := ours.fullmatch(link)))
