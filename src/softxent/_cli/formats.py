"""Files that are read: the arrays of .npy, .npz and .safetensors files, as maps of the disk.

No array is loaded, because a file may be larger than memory. The error for any other format says how to convert it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from . import terminal
from .files import Array, CommandError

UNPACKED_BYTES = 1 << 20  # bytes of a compressed array that are unpacked at a time
WORTH_A_WORD = 1 << 26  # bytes on the disk without need

SAFETENSORS_DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"},
}

# The formats of other programs: their names, how a file's name ends, how its bytes start, and how to get the array.
PYTORCH = (
    "a PyTorch file",
    (".pt", ".pth", ".ckpt"),
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    'torch.load("{path}", map_location="cpu").detach().numpy()) (bfloat16: .float() before .numpy()',
)
OTHERS: tuple[tuple[str, tuple[str, ...], bytes, str], ...] = (
    PYTORCH,
    ("an HDF5 file", (".h5", ".hdf5"), b"\x89HDF\r\n", 'h5py.File("{path}")["NAME"][...]'),
    ("a Parquet file", (".parquet",), b"PAR1", 'pandas.read_parquet("{path}").to_numpy()'),
    ("a MATLAB file", (".mat",), b"MATLAB ", 'scipy.io.loadmat("{path}")["NAME"]'),
    ("a pickle", (".pkl", ".pickle"), b"\x80\x04", 'pickle.load(open("{path}", "rb"))'),
    ("text", (".csv",), b"", 'np.loadtxt("{path}", delimiter=",")'),
    ("text", (".tsv", ".txt"), b"", 'np.loadtxt("{path}")'),
)


class Layout(NamedTuple):
    """Where in a file an array lies, and how."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    offset: int

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def open_array(name: str) -> Array:
    """Map the array that is called PATH, or PATH:NAME if the file holds several. It cannot be written to."""
    path, member = split_name(name)
    try:
        with open(path, "rb") as file:
            start = file.read(16)
            file.seek(0)
            if start.startswith(np.lib.format.MAGIC_PREFIX):
                if member is not None:
                    raise CommandError(f"{name}: a .npy file holds one array, without a name: leave out :{member}")
                return _map(file, name, _npy_layout(file, name))
            if start.startswith((b"PK\x03\x04", b"PK\x05\x06")) and not path.lower().endswith(PYTORCH[1]):
                return _from_npz(file, path, member)
            if path.lower().endswith(".safetensors"):
                return _from_safetensors(file, path, member)
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise CommandError(f"{path}: {_what_to_do(path, start)}")


def as_bfloat16(array: Array, name: str) -> Array:
    """The same bytes as bfloat16, which NumPy has no name for and saves as nameless pairs of bytes."""
    if array.dtype.name == "bfloat16":
        return array
    if array.dtype.itemsize != 2 or array.dtype.kind not in "Vui" or not array.dtype.isnative:
        raise CommandError(
            f"--dtype bfloat16: {name} has dtype {array.dtype}: bfloat16 is saved as |V2, uint16 or int16"
        )
    return array.view(_bfloat16(name))


def _bfloat16(name: str) -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError:
        raise CommandError(f"{name}: bfloat16 needs ml_dtypes: pip install ml_dtypes") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def split_name(name: str) -> tuple[str, str | None]:
    """The PATH and the NAME of PATH:NAME. If a file's own name has a colon, it is taken as a path."""
    if not os.path.exists(name):
        for at, character in enumerate(name):
            if character == ":" and os.path.isfile(name[:at]):
                return name[:at], name[at + 1 :]
    return name, None


def _choose(path: str, names: Sequence[str], member: str | None) -> str:
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if member is None and len(names) == 1:
        return names[0]
    if member is None:
        if not names:
            raise CommandError(f"{path}: holds no array")
        raise CommandError(f"{path}: holds {len(names)} arrays, {shown}: say which, as in {path}:{names[0]}")
    if member not in names:
        raise CommandError(f"{path}: holds no array of the name {member!r}, but {shown or 'none'}")
    return member


def _map(file: BinaryIO, name: str, layout: Layout, size: int | None = None) -> Array:
    """The array as a map of an open file that has `size` bytes."""
    if size is None:
        size = os.fstat(file.fileno()).st_size
    if layout.end > size:
        raise CommandError(f"{name}: is cut short: its array ends at byte {layout.end} of {size}")
    if layout.end == layout.offset:  # an empty file cannot be mapped
        return np.empty(layout.shape, layout.dtype)
    order: Literal["F", "C"] = "F" if layout.fortran_order else "C"
    mapped = mmap.mmap(file.fileno(), layout.end, access=mmap.ACCESS_READ)
    return np.ndarray(layout.shape, layout.dtype, mapped, layout.offset, order=order)


# .npy, .npz ---------------------------------------------------------------------------------------


def _npy_layout(file: BinaryIO, name: str) -> Layout:
    """Read the header of a .npy file, from where `file` is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged header is reported once, below
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            else:  # no array of numbers needs such a header
                shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
        layout = Layout(dtype, tuple(shape), fortran_order, file.tell())
        if any(n < 0 for n in layout.shape) or dtype.itemsize == 0:
            raise ValueError(f"shape {layout.shape}, dtype {dtype}")
    except OSError:
        raise
    except Exception as error:  # a damaged header can fail in any way that a Python literal can
        raise CommandError(f"{name}: not a readable .npy file, or cut short: {error}") from error
    if dtype.hasobject:
        raise CommandError(f"{name}: holds Python objects, not numbers: save array.astype(float) instead")
    return layout


def _from_npz(file: BinaryIO, path: str, member: str | None) -> Array:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if any(name.endswith("data.pkl") for name in entries):  # an archive that PyTorch wrote
                raise CommandError(f"{path}: {_what_to_do(path, PYTORCH[2])}")
            arrays = [name for name, info in entries.items() if info.filename.endswith(".npy")]
            chosen = _choose(path, arrays, member)
            name, entry = f"{path}:{chosen}", entries[chosen]
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                return _unpacked(archive, entry, name)
            start = _start_of(file, entry)
            file.seek(start)
            return _map(file, name, _npy_layout(file, name), start + entry.file_size)
    except (zipfile.BadZipFile, struct.error, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise CommandError(f"{path}: not a readable .npz file, or cut short: {error}") from error


def _start_of(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """The place of the first byte of a stored entry. The header, name and extra field before it have any length."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no header for {entry.filename}")
    name_length, extra_length = struct.unpack("<HH", header[26:])
    return entry.header_offset + len(header) + int(name_length) + int(extra_length)


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Array:
    """Map a compressed array, through a temporary file that is removed when the program ends, however it ends."""
    folder = tempfile.gettempdir()
    if entry.file_size > WORTH_A_WORD:
        size = f"{entry.file_size / 1e9:.1f} GB"
        terminal.note(f"{name} is compressed: its {size} are unpacked in {folder} first; np.savez saves without that")
    try:
        with tempfile.TemporaryFile() as unpacked:
            with archive.open(entry) as packed, terminal.progress("unpacking", entry.file_size) as advance:
                while block := packed.read(UNPACKED_BYTES):
                    unpacked.write(block)
                    advance(unpacked.tell(), "")
            unpacked.seek(0)
            return _map(unpacked, name, _npy_layout(unpacked, name))
    except OSError as error:
        why = error.strerror or error
        raise CommandError(f"{name}: cannot be unpacked in {folder} (TMPDIR names another folder): {why}") from error


# .safetensors -------------------------------------------------------------------------------------


def _from_safetensors(file: BinaryIO, path: str, member: str | None) -> Array:
    """Map an array of a file that the package has checked. The header says where it lies: 8 bytes of length, then JSON.
    The data follow.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise CommandError(f"{path}: .safetensors needs safetensors: pip install safetensors") from None
    try:
        with safe_open(path, framework="np") as checked:
            names = list(checked.keys())
    except SafetensorError as error:
        raise CommandError(f"{path}: not a readable .safetensors file, or cut short: {error}") from error
    chosen = _choose(path, names, member)
    length = int.from_bytes(file.read(8), "little")
    entry = json.loads(file.read(length))[chosen]
    name, kind = f"{path}:{chosen}", entry["dtype"]
    if kind not in SAFETENSORS_DTYPES and kind != "BF16":
        raise CommandError(f"{name}: dtype {kind}: save it as F32, F64, F16 or BF16")
    dtype = _bfloat16(name) if kind == "BF16" else np.dtype(SAFETENSORS_DTYPES[kind])
    return _map(file, name, Layout(dtype, tuple(entry["shape"]), False, 8 + length + entry["data_offsets"][0]))


# All others ---------------------------------------------------------------------------------------


def _what_to_do(path: str, start: bytes) -> str:
    """The format that a file seems to have, and how to convert it."""
    can_be_read = "not a .npy, .npz or .safetensors file"
    for kind, endings, magic, load in OTHERS:
        if path.lower().endswith(endings) or (magic and start.startswith(magic)):
            stem = os.path.splitext(os.path.basename(path))[0]
            return f'{kind}, {can_be_read}; convert it: np.save("{stem}.npy", {load.format(path=path)})'
    if start.startswith(b"\x1f\x8b"):
        return f"compressed by gzip, {can_be_read}: gunzip it first"
    return f"{can_be_read}{'' if start else ': it is empty'}; np.save writes one"
