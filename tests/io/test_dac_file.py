"""`.dac`: upstream's files both ways, and files that would run code, fill the memory or lie."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcodec.codes import Codes
from fastcodec.errors import FormatError
from fastcodec.io import inert_pickle
from fastcodec.io.dac_file import DacFile, read_dac, write_dac

from .test_fuzz import _attack, _memory_limit

HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"


def dac_file(rows: int = 1, codebooks: int = 9, frames: int = 12, **changes: Any) -> DacFile:
    rng = np.random.default_rng(frames)
    codes = rng.integers(0, 1024, (rows, codebooks, frames))
    values = {
        "chunk_length": frames, "original_length": frames * 512 - 7, "channels": rows,
        "input_db": np.array([-23.5], np.float32), "sample_rate_hz": 44100, "padding": True,
    }  # fmt: skip
    return DacFile(codes, **{**values, **changes})


def tree(**changes: Any) -> dict[str, Any]:
    """What upstream pickles, with some of the metadata changed."""
    metadata = {
        "input_db": np.array([-23.5], np.float32), "original_length": 6000, "sample_rate": 44100,
        "chunk_length": 12, "channels": 1, "padding": True, "dac_version": "1.0.0", **changes,
    }  # fmt: skip
    codes = np.random.default_rng(1).integers(0, 1024, (1, 9, 12)).astype(np.uint16)
    return {"codes": metadata.pop("codes", codes), "metadata": metadata}


def npy(body: bytes, header: bytes = HEADER, version: bytes = b"\x01\x00") -> bytes:
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + body


def pickled(value: Any, protocol: int = 4) -> bytes:
    return npy(pickle.dumps(np.asanyarray(value), protocol=protocol))


def same(a: DacFile, b: DacFile) -> bool:
    plain = [{k: v for k, v in vars(x).items() if not isinstance(v, np.ndarray)} for x in (a, b)]
    arrays = np.array_equal(a.codes, b.codes) and np.array_equal(a.input_db, b.input_db)
    return plain[0] == plain[1] and arrays


@given(st.integers(1, 3), st.integers(1, 18), st.integers(1, 40), st.booleans(), st.integers(1, 4))
def test_any_file_returns(
    channels: int, codebooks: int, chunk: int, padding: bool, chunks: int
) -> None:
    file = dac_file(channels, codebooks, chunk * chunks, chunk_length=chunk, padding=padding)
    assert same(read_dac(write_dac(file)), file)


def test_numpy_reads_what_is_written() -> None:
    """As upstream does; and no name in it is younger than NumPy 1."""
    file = dac_file(2)
    data = write_dac(file)
    read = np.load(io.BytesIO(data), allow_pickle=True)[()]
    assert np.array_equal(read["codes"], file.codes) and read["codes"].dtype == np.uint16
    assert read["metadata"] == {
        "input_db": np.float32(-23.5), "original_length": 6137, "sample_rate": 44100,
        "chunk_length": 12, "channels": 2, "padding": True, "dac_version": "1.0.0",
    }  # fmt: skip
    names = {arg for op, arg, _ in pickletools.genops(data[128:]) if op.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00"])
def test_every_spelling_is_read(protocol: int, version: bytes) -> None:
    body = pickle.dumps(np.asanyarray(tree()), protocol=protocol)
    old = pickle.dumps(np.asanyarray(tree()), protocol=3).replace(b"numpy._core", b"numpy.core")
    file = read_dac(npy(body, version=version))
    assert np.array_equal(file.codes, tree()["codes"]) and file.original_length == 6000
    assert same(read_dac(npy(old, version=version)), file)


@pytest.mark.parametrize(
    "change",
    [
        lambda codes: codes.astype(">u2"), lambda codes: codes.astype(np.int64),
        lambda codes: np.asfortranarray(codes), lambda codes: codes.astype(np.int32),
    ],
)  # fmt: skip
def test_every_layout_of_an_array_is_read(change: Callable[[Any], Any]) -> None:
    codes = tree()["codes"]
    for protocol in (3, 4, 5):
        assert np.array_equal(read_dac(pickled(tree(codes=change(codes)), protocol)).codes, codes)


def test_numbers_may_be_numpys() -> None:
    changes = {"original_length": np.int64(6000), "padding": np.bool_(True), "input_db": -23.5}
    assert same(read_dac(pickled(tree(**changes))), read_dac(pickled(tree())))


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_nothing_is_executed(tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "executed")
    files = [
        pickled(bomb), pickled([bomb]), pickled({**tree(), "codes": bomb}),
        pickled(tree(input_db=bomb)), pickled(tree(padding=bomb)), pickled(tree(dac_version=bomb)),
        npy(pickle.dumps(bomb)), npy(pickle.dumps(bomb, protocol=0)),
        npy(pickle.dumps(bomb, protocol=2)),
    ]  # fmt: skip
    for data in files:
        with pytest.raises(FormatError):
            read_dac(data)
    assert not bomb.path.exists()
    np.load(io.BytesIO(files[0]), allow_pickle=True)  # it would have been
    assert bomb.path.exists()


def crafted(state: bytes) -> bytes:
    """A pickle whose array has this state instead of its own; see ``pickletools.dis``."""
    begin = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return begin + state + b"b."


SHAPE = b"K\x01K\tK\x0c\x87"  # (1, 9, 12)
CLAIMS = {
    "a long header": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + HEADER,
    "bytes": npy(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc"),
    "text": npy(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc"),
    "a bytearray": npy(b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"abc"),
    "a place in the memo": npy(b"\x80\x04Nr\xff\xff\xff\xff0."),
    "a long number": npy(b"\x80\x04\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000 + b"."),
    "a number of many digits": npy(b"\x80\x02L" + b"9" * 100_000 + b"L\n."),
    "many objects": npy(b"\x80\x04" + b"}" * 50_000 + b"."),
    "deep nesting": npy(b"\x80\x04)" + b"\x85" * 9_000 + b"."),
    "itself": npy(b"\x80\x04]\x94h\x00a."),
    "keys that are numbers": npy(b"\x80\x04}K\x01K\x02s."),
    "no stack": npy(b"\x80\x04\x85."),
    "no mark": npy(b"\x80\x04t."),
    "no object": npy(b"\x80\x04."),
    "another state": npy(b"\x80\x04NN."),
    "an object twice": pickled(tree()) + b"N.",
    "half a file": pickled(tree())[:-20],
    "a huge array": pickled(tree()).replace(SHAPE, b"J\xff\xff\xff\x7fK\tK\x0c\x87"),
    "a negative array": pickled(tree()).replace(SHAPE, b"J\xff\xff\xff\xffK\tK\x0c\x87"),
    "an array without a state": npy(crafted(b"N")),
    "an array of nothing": npy(crafted(b"(K\x01))\x89]t")),
    "a wide type": pickled(tree()).replace(b"\x8c\x02u2", b"\x8c\x02V9"),
    "objects for codes": pickled(tree(codes=np.array([[[None]]]))),
    "objects for loudness": pickled(tree(input_db=np.array([None]))),
    "no array": npy(pickle.dumps(tree())),
    "an array of two": npy(pickle.dumps(np.array([1, 2], object))),
    "a list": pickled([1, 2]),
    "text for codes": pickled(tree(codes="1 2 3")),
    "the header of another array": npy(b"", HEADER.replace(b"|O", b"<f4")),
    "a name with an escape": npy(b"\x80\x03cnumpy\\q\nndarray\n."),
    "nothing": b"",
    "a wave file": b"RIFF" + bytes(60),
}  # fmt: skip


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_file_claims(name: str) -> None:
    with _memory_limit(), pytest.raises(FormatError):
        read_dac(CLAIMS[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"dac_version": "0.9"}, {"dac_version": None}, {"dac_version": 1}, {"codec": "dac_44khz"},
        {"codes": np.zeros((1, 9), np.uint16)}, {"codes": np.zeros((1, 9, 0), np.uint16)},
        {"codes": np.full((1, 1, 12), -1)}, {"codes": np.full((1, 1, 12), 1 << 16)},
        {"codes": np.zeros((1, 9, 12), np.float32)}, {"codes": np.zeros((1, 9, 12), np.uint64)},
        {"codes": np.zeros((1, 1, 12), bool)},
        {"input_db": np.array([np.nan], np.float32)}, {"input_db": np.array([1e300])},
        {"input_db": np.zeros((1, 1), np.float32)}, {"input_db": np.zeros(3, np.float32)},
        {"input_db": "loud"}, {"input_db": None},
        {"original_length": 0}, {"original_length": -1}, {"original_length": 1.0},
        {"original_length": True}, {"original_length": np.arange(2)}, {"original_length": 1 << 63},
        {"sample_rate": 0}, {"sample_rate": 1 << 40}, {"sample_rate": None},
        {"chunk_length": 0}, {"chunk_length": "12"}, {"chunk_length": 5, "padding": False},
        {"channels": 0}, {"channels": 2}, {"padding": 1}, {"padding": None},
    ],
)  # fmt: skip
def test_values_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        read_dac(pickled(tree(**changes)))


def test_a_missing_entry() -> None:
    value = tree()
    del value["metadata"]["padding"]
    with pytest.raises(FormatError, match="padding"):
        read_dac(pickled(value))


@pytest.mark.parametrize(
    "changes",
    [
        {"codes": np.zeros((1, 9, 12), np.uint16)}, {"codes": np.full((1, 9, 12), 1 << 16)},
        {"chunk_length": 0}, {"original_length": 0}, {"channels": 2}, {"sample_rate_hz": 0},
        {"padding": False, "chunk_length": 5}, {"input_db": np.array([1.0])},
        {"input_db": np.array([np.inf], np.float32)},
    ],
)  # fmt: skip
def test_values_that_cannot_be_written(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "old.dac"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="write_dac"):
        write_dac(replace(dac_file(), **changes), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_path_bytes_and_open_file(tmp_path: Path) -> None:
    path, stream = tmp_path / "speech.dac", io.BytesIO()
    data = write_dac(dac_file(), path)
    write_dac(dac_file(), stream)
    assert path.read_bytes() == data == stream.getvalue()
    assert list(tmp_path.iterdir()) == [path]
    stream.seek(0)
    for source in (path, str(path), data, bytearray(data), memoryview(data), stream):
        assert same(read_dac(source), dac_file())


def test_codes_both_ways() -> None:
    tokens = torch.randint(0, 1024, (2, 9, 5), generator=torch.Generator().manual_seed(0))
    codes = Codes(tokens, 44100 / 512, torch.tensor([2100, 2100]), "dac_44khz", hop=512)
    file = DacFile.from_codes(codes, -20.0)
    assert (file.sample_rate_hz, file.channels, file.padding, file.chunk_length) == (
        44100, 2, True, 5,
    )  # fmt: skip
    back = read_dac(write_dac(file)).to_codes("dac_44khz", 44100, 512)
    assert torch.equal(back.tokens, tokens) and back.frame_rate_hz == codes.frame_rate_hz
    assert torch.equal(back.n_samples, codes.n_samples) and back.hop == 512
    other = replace(file, sample_rate_hz=48000, original_length=2400)
    assert other.to_codes("dac_44khz", 44100, 512).n_samples.tolist() == [2205, 2205]
    for wrong in (replace(file, padding=False), replace(file, chunk_length=3)):
        with pytest.raises(ValueError, match="windows"):
            wrong.to_codes("dac_44khz", 44100, 512)
    with pytest.raises(ValueError, match="another codec"):
        file.to_codes("dac_16khz", 44100, 320)
    with pytest.raises(ValueError, match="one length"):
        DacFile.from_codes(replace(codes, n_samples=torch.tensor([2100, 2050])), -20.0)
    with pytest.raises(ValueError, match="sample_rate_hz"):
        DacFile.from_codes(replace(codes, hop=None), -20.0)


def test_an_inert_pickle_is_what_was_pickled() -> None:
    value = {"a": [1, -2, 2.5, "text", b"bytes", None, True, (), (1,), (1, 2, 3, 4)], "b": {"c": 7}}
    value["again"] = value["a"]
    for protocol in (3, 4, 5):
        assert inert_pickle.read(pickle.dumps(value, protocol=protocol)) == value


def test_the_edits_of_these_files_found_their_place() -> None:
    assert pickled(tree()).count(SHAPE) == pickled(tree()).count(b"\x8c\x02u2") == 1


def seeds() -> list[bytes]:
    windows = dac_file(2, 3, 8, chunk_length=4, padding=False)
    return [
        write_dac(dac_file()), write_dac(windows), pickled(tree()), pickled(tree(), 5),
        pickled(tree(original_length=np.int64(6000)), 2),
    ]  # fmt: skip


def test_damaged_files() -> None:
    _attack(read_dac, seeds(), 8_000)
