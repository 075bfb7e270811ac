"""The published implementations that tests run beside fastcodec; one that does not import fails."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import Tensor


@contextmanager
def stand_ins(*names: str) -> Iterator[dict[str, MagicMock]]:
    """Mocks in the place of modules while another is imported; what was there comes back."""
    before = {name: sys.modules.get(name) for name in names}
    mocks = {name: MagicMock(name=name) for name in names}
    sys.modules.update(mocks)
    try:
        yield mocks
    finally:
        for name, real in before.items():
            del sys.modules[name]
            if real is not None:
                sys.modules[name] = real


def encodec(module: str = "encodec") -> ModuleType:
    """A module of encodec 0.1.1 (PyPI).

    It imports torchaudio, which it needs for reading files only, and whose extension does not load
    without CUDA: a stand-in takes its place during the import.
    """
    if "encodec" not in sys.modules:
        with stand_ins("torchaudio"):
            importlib.import_module("encodec")
    return importlib.import_module(module)


def transformers() -> ModuleType:
    """transformers, of which the codecs' models are used."""
    return importlib.import_module("transformers")


def speechtokenizer() -> ModuleType:
    """speechtokenizer 1.0.1 (PyPI), without its trainer, which needs a dozen packages."""
    trainer = ModuleType("speechtokenizer.trainer")
    trainer.SpeechTokenizerTrainer = None  # type: ignore[attr-defined]
    sys.modules.setdefault(trainer.__name__, trainer)
    return importlib.import_module("speechtokenizer")


def moshi(module: str = "moshi") -> ModuleType:
    """A module of moshi 0.2.13 (PyPI).

    It imports sentencepiece, which only the text of its language model needs: a stand-in takes its
    place during the import.
    """
    if "moshi" not in sys.modules:
        with stand_ins("sentencepiece"):
            importlib.import_module("moshi")
    return importlib.import_module(module)


def descript(module: str = "dac") -> ModuleType:
    """A module of descript-audio-codec 1.0.0 (PyPI; the package ``dac`` there is another one).

    Stand-ins take the place, during the import, of what its tools import and its codec does not
    need, and of torchaudio, whose filter, the only thing that it takes from there, is SciPy's.
    """
    unused = ("argbind", "ffmpy", "flatten_dict", "importlib_resources", "randomname")
    if "dac" not in sys.modules:
        with stand_ins("torchaudio", "torch.utils.tensorboard", *unused) as modules:
            modules["torchaudio"].functional.lfilter = _lfilter
            importlib.import_module("dac")
    return importlib.import_module(module)


def _lfilter(x: Tensor, a: Tensor, b: Tensor, clamp: bool) -> Tensor:
    """As torchaudio's ``lfilter`` without ``clamp``."""
    scipy = importlib.import_module("scipy.signal")
    return torch.from_numpy(scipy.lfilter(b.numpy(), a.numpy(), x.numpy())).float()


def funcodec(module: str = "funcodec") -> ModuleType:
    """A module of funcodec 0.2.0 (PyPI).

    Stand-ins take the place, during the import, of what its losses need, of typeguard, whose old
    version it checks arguments with, and of torchaudio, of which it takes two transforms.
    """
    if "funcodec.models.codec_freq" not in sys.modules:
        with stand_ins("torchaudio", "typeguard", "librosa", "librosa.filters") as modules:
            modules["torchaudio"].transforms.Spectrogram = _Spectrogram
            modules["torchaudio"].transforms.InverseSpectrogram = _InverseSpectrogram
            for name in ("basic", "freq", "semantic_aug"):
                importlib.import_module(f"funcodec.models.codec_{name}")
            importlib.import_module("funcodec.modules.normed_modules.transformer")
    return importlib.import_module(module)


class _Spectrogram(torch.nn.Module):
    """As torchaudio's, complex (``power`` None) or of magnitudes."""

    def __init__(self, n_fft: int, hop_length: int, power: float | None = None) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.power = n_fft, hop_length, power
        self.register_buffer("window", torch.hann_window(n_fft))

    def forward(self, x: Tensor) -> Tensor:
        sizes = (self.n_fft, self.hop_length)
        y = torch.stft(x, *sizes, window=self.window, pad_mode="reflect", return_complex=True)
        return y if self.power is None else y.abs()


class _InverseSpectrogram(_Spectrogram):
    """As torchaudio's."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, *x.shape[-2:])
        y = torch.istft(flat, self.n_fft, self.hop_length, window=self.window)
        return y.reshape(*x.shape[:-2], -1)
