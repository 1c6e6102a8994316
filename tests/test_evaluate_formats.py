"""The promises of `evaluate` for formats: an array has the same report in every format, and is never loaded."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from command_line import absent, cut, expected, numbers, sample, shell, store
from softxent._cli import formats


@pytest.fixture
def arrays():
    return sample((40, 6), -1, dtype=np.float32)


@pytest.fixture(params=["npz", "compressed npz", "safetensors"])
def archive(request, tmp_path, arrays):
    """An archive of both arrays, after another array with an odd number of bytes."""
    content = {"and": np.zeros(3, np.uint8), "logits": arrays[0], "labels": arrays[1]}
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
        from safetensors.numpy import save_file

        path = tmp_path / "both.safetensors"
        save_file(content, path)
    else:
        path = tmp_path / "both.npz"
        (np.savez_compressed if "compressed" in request.param else np.savez)(path, **content)
    return path


def test_an_archive_has_the_report_of_its_arrays(run, archive, arrays):
    status, out, err = run("evaluate", f"{archive}:logits", f"{archive}:labels", "--json")
    assert (status, err) == (0, "")
    assert numbers(out) == pytest.approx(expected(*arrays)[0], rel=1e-6)


def test_an_archive_of_several_arrays_wants_a_name(refused, archive):
    message = refused("evaluate", archive, f"{archive}:labels")
    assert "holds 3 arrays" in message
    assert f"say which, as in {archive}:" in message


def test_an_archive_tells_the_names_that_it_has(refused, archive):
    message = refused("evaluate", f"{archive}:logit", f"{archive}:labels")
    assert "holds no array of the name 'logit', but " in message
    assert "labels" in message


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_an_archive_that_is_cut_short_is_refused_in_one_line(refused, archive, share):
    cut(archive, int(archive.stat().st_size * share))
    assert "cut short" in refused("evaluate", f"{archive}:logits", f"{archive}:labels")


def test_an_archive_of_one_array_needs_no_name(run, tmp_path, arrays):
    np.savez(tmp_path / "logits.npz", arrays[0])
    np.savez(tmp_path / "labels.npz", arrays[1])
    _, out, _ = run("evaluate", tmp_path / "logits.npz", tmp_path / "labels.npz", "--json")
    assert numbers(out) == pytest.approx(expected(*arrays)[0], rel=1e-6)


def test_an_archive_without_an_array_is_refused(refused, tmp_path):
    np.savez(tmp_path / "none.npz")
    assert "holds no array" in refused("evaluate", tmp_path / "none.npz", tmp_path / "none.npz")


def test_a_file_whose_name_has_a_colon_is_taken_as_it_is(run, tmp_path, arrays):
    if os.name == "nt":
        pytest.skip("no colons in names there")
    files = [path.rename(f"{path}:x") for path in store(tmp_path, *arrays)]
    assert run("evaluate", *files)[0] == 0


def test_a_npy_file_has_no_names(refused, files):
    assert "leave out :logits" in refused("evaluate", f"{files[0]}:logits", files[1])


def test_fortran_order_is_kept_in_an_archive(run, tmp_path, arrays):
    np.savez(tmp_path / "f.npz", logits=np.asfortranarray(arrays[0]), labels=arrays[1])
    _, out, _ = run("evaluate", tmp_path / "f.npz:logits", tmp_path / "f.npz:labels", "--json")
    assert numbers(out) == pytest.approx(expected(*arrays)[0], rel=1e-6)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5)])
def test_nothing_can_be_read_from_every_format(run, tmp_path, shape):
    logits, labels = np.zeros(shape, np.float32), np.zeros(shape[:-1], int)
    np.savez(tmp_path / "s.npz", logits=logits, labels=labels)
    np.savez_compressed(tmp_path / "c.npz", logits=logits, labels=labels)
    for name in ("s.npz", "c.npz"):
        status, out, _ = run("evaluate", f"{tmp_path / name}:logits", f"{tmp_path / name}:labels", "--json")
        assert status == 0
        assert json.loads(out)["samples"] == 0


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed npz", "safetensors"])
def test_no_format_is_loaded_into_memory(tmp_path, kind):
    logits = np.random.default_rng(0).standard_normal((100_000, 50), np.float32)  # 20 MB
    name = str(tmp_path / "logits") + "." + kind.split()[-1]
    if kind == "safetensors":
        pytest.importorskip("safetensors")
        from safetensors.numpy import save_file

        save_file({"logits": logits}, name)
    else:
        {"npy": np.save, "npz": np.savez, "compressed npz": np.savez_compressed}[kind](name, logits)
    tracemalloc.start()
    array = formats.open_array(name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    assert not array.flags.owndata
    assert not array.flags.writeable
    np.testing.assert_array_equal(array, logits)


def test_a_large_compressed_array_is_unpacked_with_a_word(run, tmp_path, arrays, monkeypatch):
    monkeypatch.setattr(formats, "WORTH_A_WORD", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unpacked"))
    (tmp_path / "unpacked").mkdir()
    files = store(tmp_path, *arrays)
    np.savez_compressed(tmp_path / "c.npz", arrays[0])
    status, _, err = run("evaluate", tmp_path / "c.npz", files[1])
    assert status == 0
    assert re.fullmatch(
        r"softxent: note: .*c\.npz:arr_0 is compressed: its .* GB are unpacked in .*unpacked first.*\n", err
    )
    assert os.listdir(tmp_path / "unpacked") == []


def test_a_compressed_array_that_cannot_be_unpacked_says_where(refused, tmp_path, arrays, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    np.savez_compressed(tmp_path / "c.npz", arrays[0])
    message = refused("evaluate", tmp_path / "c.npz", tmp_path / "c.npz")
    assert "cannot be unpacked in" in message
    assert "TMPDIR" in message


def test_a_damaged_compressed_array_is_refused(refused, tmp_path, arrays):
    np.savez_compressed(tmp_path / "c.npz", arrays[0])
    content = bytearray((tmp_path / "c.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "c.npz").write_bytes(content)
    assert "not a readable .npz file" in refused("evaluate", tmp_path / "c.npz", tmp_path / "c.npz")


def test_a_damaged_header_prints_its_error_and_nothing_else(files):
    """NumPy warns about these headers before it fails: one is of Python 2, one has a backslash without meaning."""
    for header in (b"{'descr': '<f8', 'shape': (1L, 5), 'fortran_order': 3}", b"{'descr': '\\q', 'shape': 1}"):
        files[0].write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(400))
        result = shell("evaluate", *files, env={**os.environ, "PYTHONWARNINGS": "always"})
        assert (result.returncode, result.stdout) == (2, "")
        assert re.fullmatch("softxent: error: .*: not a readable .npy file, or cut short: .*\n", result.stderr)


# bfloat16 -----------------------------------------------------------------------------------------


@pytest.fixture
def halves(arrays):
    """The same logits as bfloat16, and as float32 with the same values."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rounded = arrays[0].astype(ml_dtypes.bfloat16)
    return rounded, rounded.astype(np.float32)


@pytest.mark.parametrize("saved_as", [None, "u2", "i2"])
def test_bfloat16_is_read_where_it_is_asked_for(run, tmp_path, arrays, halves, saved_as):
    files = store(tmp_path, halves[0] if saved_as is None else halves[0].view(saved_as), arrays[1])
    out = tmp_path / "grad.npy"
    _, stdout, stderr = run("evaluate", *files, "--dtype", "bfloat16", "--grad", out, "--json", "--calibration")
    report, gradient = expected(halves[1], arrays[1])
    assert stderr == ""
    found = numbers(stdout)
    assert 0 < found.pop("calibration_error") < 1
    assert found == pytest.approx(report, rel=1e-6)
    assert np.load(out).dtype == np.float32
    np.testing.assert_allclose(np.load(out), gradient, rtol=1e-5, atol=1e-9)


def test_bfloat16_of_safetensors_needs_no_option(run, tmp_path, arrays, halves):
    pytest.importorskip("safetensors")
    from safetensors.numpy import save_file

    save_file({"z": halves[0]}, tmp_path / "z.safetensors")
    files = tmp_path / "z.safetensors", store(tmp_path, *arrays)[1]
    _, stdout, _ = run("evaluate", *files, "--json")
    assert numbers(stdout) == pytest.approx(expected(halves[1], arrays[1])[0], rel=1e-6)


def test_bits_of_bfloat16_are_not_taken_for_numbers(refused, tmp_path, arrays, halves):
    message = refused("evaluate", *store(tmp_path, halves[0].view("u2"), arrays[1]))
    assert "logits.npy: dtype uint16: may be the bits of bfloat16: --dtype bfloat16 reads them so" in message
    message = refused("evaluate", *store(tmp_path, halves[0], arrays[1]))
    assert "logits.npy: dtype |V2: is how NumPy saves bfloat16: --dtype bfloat16 reads it" in message


@pytest.mark.parametrize("dtype", ["f4", "f2", ">u2", "V4", "u4"])
def test_what_cannot_be_bfloat16_is_refused(refused, tmp_path, dtype):
    files = store(tmp_path, np.zeros((3, 2), dtype), np.zeros(3, int))
    assert f"has dtype {np.dtype(dtype)}: bfloat16 is saved as |V2" in refused(
        "evaluate", *files, "--dtype", "bfloat16"
    )


# What is missing, what is not read ----------------------------------------------------------------


def test_a_missing_package_is_told_in_one_line(refused, monkeypatch, tmp_path):
    (tmp_path / "z.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    np.save(tmp_path / "z.npy", np.zeros((3, 2), "V2"))
    absent(monkeypatch, "safetensors")
    absent(monkeypatch, "ml_dtypes")
    assert ".safetensors needs safetensors: pip install safetensors" in refused(
        "evaluate", tmp_path / "z.safetensors", "y"
    )
    np.save(tmp_path / "y.npy", np.zeros(3, int))
    files = tmp_path / "z.npy", tmp_path / "y.npy"
    assert "bfloat16 needs ml_dtypes: pip install ml_dtypes" in refused("evaluate", *files, "--dtype", "bfloat16")


def test_other_formats_are_told_how_to_convert(refused, tmp_path):
    for name, content, words in (
        ("a.pt", b"PK\x03\x04 of PyTorch", 'np.save("a.npy", torch.load("'),
        ("a.bin", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch file"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "h5py.File("),
        ("a.csv", b"1,2\n", 'delimiter=",")'),
        ("a.txt", b"1 2\n", "np.loadtxt("),
        ("a.parquet", b"PAR1", "pandas.read_parquet("),
        ("a.pkl", b"\x80\x04", "pickle.load("),
        ("a.mat", b"MATLAB 5.0", "scipy.io.loadmat("),
        ("a.npy.gz", b"\x1f\x8b\x08", "gunzip it first"),
        ("a", b"???", "not a .npy, .npz or .safetensors file; np.save writes one"),
    ):
        (tmp_path / name).write_bytes(content)
        assert words in refused("evaluate", tmp_path / name, "labels.npy")


def test_an_archive_of_pytorch_is_known_by_its_content(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert "torch.load(" in refused("evaluate", tmp_path / "model.zip", "labels.npy")
