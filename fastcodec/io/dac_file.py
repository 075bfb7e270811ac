"""DAC's ``.dac`` container: a NumPy file of one pickled dict, which is read without unpickling it.

{"codes": uint16 [channels, K, T], "metadata": {input_db, original_length, sample_rate,
chunk_length, channels, padding, dac_version}} as a 0-dimensional object array
(descript-audio-codec dac/model/base.py@c7cfc5d2). A file does not name its model.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcodec.codes import Codes
from fastcodec.errors import FormatError
from fastcodec.io import inert_pickle, numpy_pickle
from fastcodec.io.source import Source, Target, read_all, write_all

VERSION = "1.0.0"
MAGIC = b"\x93NUMPY"

_PREFIX = re.compile(
    rb"\x93NUMPY(?:\x01\x00(?P<short>..)|[\x02\x03]\x00(?P<long>....))"
    rb"\{ *'descr': *'\|O', *'fortran_order': *(?:False|True), *'shape': *\( *\) *,? *\} *\n",
    re.DOTALL,
)
_MAX_SAMPLE_RATE_HZ = 1_000_000
_MAX_DB = 200.0  # full scale of 32-bit integers, taken for floats, is 187
_METADATA = {
    "input_db", "original_length", "sample_rate", "chunk_length", "channels", "padding",
    "dac_version",
}  # fmt: skip


@dataclass(frozen=True)
class DacFile:
    """What a file holds: usually one signal, its channels coded one by one.

    Args:
        codes: [rows, K, T] int64; row r is channel r % channels of signal r // channels
        chunk_length: frames that are decoded at a time
        original_length: samples of the signal, at its own rate
        input_db: [n] float32, the loudness in LUFS that decoded rows are brought to: one value for
            all, one a signal or one a row
        channels: of the signal
        sample_rate_hz: of the signal before encoding
        padding: the chunk was coded with the nets' usual padding; otherwise every chunk with none
    """

    codes: NDArray[np.int64]
    chunk_length: int
    original_length: int
    input_db: NDArray[np.float32]
    channels: int
    sample_rate_hz: int
    padding: bool

    def problem(self) -> str | None:
        """What is wrong with these values, or None."""
        codes = self.codes
        if codes.ndim != 3 or codes.dtype != np.int64 or codes.size == 0:
            return f"codes must be [rows, K, T] int64, got {list(codes.shape)} {codes.dtype}"
        if not 0 <= codes.min() <= codes.max() < 1 << 16:
            return f"codes must be in [0, 65536), got {codes.min()} to {codes.max()}"
        limits = {
            "chunk_length": 1 << 31, "original_length": 1 << 62, "channels": len(codes),
            "sample_rate_hz": _MAX_SAMPLE_RATE_HZ,
        }  # fmt: skip
        for name, most in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                return f"{name} must be a whole number from 1 to {most}, got {value!r}"
        if not isinstance(self.padding, bool):
            return f"padding must be true or false, got {self.padding!r}"
        if len(codes) % self.channels:
            return f"{len(codes)} rows of codes are no signals of {self.channels} channels"
        if not self.padding and codes.shape[2] % self.chunk_length:
            return f"{codes.shape[2]} frames are no whole chunks of {self.chunk_length}"
        return self._loudness_problem()

    def _loudness_problem(self) -> str | None:
        db, rows = self.input_db, len(self.codes)
        if db.dtype != np.float32 or db.shape not in ((1,), (rows // self.channels,), (rows,)):
            return f"input_db must be one float32 for all of {rows} rows or one a row, got {db!r}"
        if not (np.abs(db) <= _MAX_DB).all():  # not true of NaN, either
            return f"input_db must be a loudness in LUFS, got {db.tolist()}"
        return None

    @classmethod
    def from_codes(
        cls, codes: Codes, input_db: float | NDArray[np.float32], sample_rate_hz: int | None = None
    ) -> DacFile:
        """The file of whole signals of one length: one chunk, of any number of frames.

        Args:
            codes: the rows are taken as the channels of one signal
            input_db: loudness in LUFS to decode to, one value or one a row. Upstream's reader
                changes the level of what it decodes to this; see ``dac_chunks.file_of``
            sample_rate_hz: of the codec, if the codes do not tell it
        """
        lengths = set(codes.n_samples.tolist())
        if len(lengths) != 1 or bool((codes.tokens < 0).any()):
            raise ValueError(f".dac: the channels must have one length, got {sorted(lengths)}")
        if sample_rate_hz is None and codes.hop is None:
            raise ValueError(
                ".dac: these codes do not tell their codec's rate: give sample_rate_hz"
            )
        rate_hz = sample_rate_hz or round(codes.frame_rate_hz * (codes.hop or 0))
        db = np.atleast_1d(np.asarray(input_db, np.float32))
        tokens = codes.tokens.cpu().numpy()
        return cls(tokens, tokens.shape[2], lengths.pop(), db, len(codes), rate_hz, True)

    def to_codes(self, codec: str, sample_rate_hz: int, hop: int) -> Codes:
        """The codes of a file of one chunk; they decode at the level that they were coded with.

        Args:
            codec: preset to note in the codes
            sample_rate_hz: of that codec
            hop: its samples a frame

        Raises:
            ValueError: the signal was coded in windows, which only ``dac_chunks.decompress`` joins,
                or its length does not go with that codec's
        """
        frames = self.codes.shape[2]
        if not self.padding or frames > self.chunk_length:
            raise ValueError(
                f".dac: this signal was coded in windows of {self.chunk_length} frames, which are "
                f"no codes of the whole; decode it with fastcodec.codecs.dac_chunks.decompress"
            )
        n_samples = self.original_length * sample_rate_hz // self.sample_rate_hz
        if -(-n_samples // hop) != frames:
            raise ValueError(
                f".dac: {frames} frames of {codec} are not {n_samples} samples; is it a file of "
                f"another codec?"
            )
        rows = torch.full((len(self.codes),), n_samples)
        return Codes(torch.from_numpy(self.codes), sample_rate_hz / hop, rows, codec, hop=hop)


def read_dac(source: Source) -> DacFile:
    """What the file holds. Nothing of it is executed.

    Args:
        source: path, bytes or open binary file

    Raises:
        FormatError: truncated, corrupted, of an unknown version, or values that cannot be
    """
    data = read_all(source)
    start = _PREFIX.match(data)
    if start is None:
        raise FormatError(f".dac: expected a NumPy file of one object, got {data[:32]!r}")
    size = int.from_bytes(start["short"] or start["long"], "little")
    begin = start.end("short" if start["short"] else "long")
    if begin + size != start.end():
        raise FormatError(f".dac: a NumPy header of {size} bytes, where {start.end() - begin} are")
    try:
        tree = numpy_pickle.unwrapped(inert_pickle.read(data[start.end() :]))
        file = _file(tree)
    except FormatError as error:
        raise FormatError(f".dac: {error}") from error
    if problem := file.problem():
        raise FormatError(f".dac: {problem}")
    return file


def write_dac(file: DacFile, target: Target | None = None) -> bytes:
    """The bytes of the file, also written to ``target`` if given; any upstream reads them.

    Raises:
        ValueError: values that a file cannot hold
    """
    if problem := file.problem():
        raise ValueError(f"write_dac: {problem}")
    tree = {
        "codes": file.codes.astype(np.uint16),
        "metadata": {
            "input_db": file.input_db,
            "original_length": file.original_length,
            "sample_rate": file.sample_rate_hz,
            "chunk_length": file.chunk_length,
            "channels": file.channels,
            "padding": file.padding,
            "dac_version": VERSION,
        },
    }
    wrapped = np.empty((), object)
    wrapped[()] = tree
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(wrapped))
    # NumPy 2 renamed the module that its pickles name first; every version knows the old name.
    body = pickle.dumps(wrapped, protocol=3)
    data = stream.getvalue() + body.replace(b"cnumpy._core.", b"cnumpy.core.", 1)
    if target is not None:
        write_all(target, data)
    return data


def _file(tree: Any) -> DacFile:
    """The file that a dict describes; its values are still to be checked."""
    if not isinstance(tree, Mapping) or tree.keys() != {"codes", "metadata"}:
        raise FormatError("expected a dict of codes and metadata")
    metadata = tree["metadata"]
    if not isinstance(metadata, Mapping) or metadata.keys() != _METADATA:
        raise FormatError(f"the metadata must be {', '.join(sorted(_METADATA))}")
    if (version := metadata["dac_version"]) != VERSION:
        raise FormatError(f"expected version {VERSION}, got {numpy_pickle.shown(version)}")
    codes = numpy_pickle.array(tree["codes"])
    if codes.dtype.kind not in "iu" or codes.dtype == np.uint64:
        raise FormatError(f"codes must be whole numbers, got {codes.dtype}")
    with np.errstate(all="ignore"):  # what does not fit is refused as not finite
        db = np.atleast_1d(numpy_pickle.array(metadata["input_db"]).astype(np.float32))
    numbers = {
        name: numpy_pickle.plain(metadata[name]) for name in _METADATA - {"input_db", "dac_version"}
    }
    return DacFile(
        codes=codes.astype(np.int64),
        chunk_length=numbers["chunk_length"],
        original_length=numbers["original_length"],
        input_db=db,
        channels=numbers["channels"],
        sample_rate_hz=numbers["sample_rate"],
        padding=numbers["padding"],
    )
