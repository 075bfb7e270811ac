"""Neural audio codecs with custom kernels: upstream's codes, whatever the batch or chunking."""

from fastcodec.codecs import Codec, CodecInfo, Stream, convert, load, models
from fastcodec.codes import Codes, batch, join
from fastcodec.errors import BackendError, FormatError, WeightsError
from fastcodec.files import read_codes, save_codes
from fastcodec.ops import use_backend

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Codec",
    "CodecInfo",
    "Codes",
    "FormatError",
    "Stream",
    "WeightsError",
    "batch",
    "convert",
    "join",
    "load",
    "models",
    "read_codes",
    "save_codes",
    "use_backend",
]
