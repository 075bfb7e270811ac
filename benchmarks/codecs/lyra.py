"""Lyra v2 float32 beside a plain torch port (our layers, reference backend) and Google's LiteRT."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastcodec
from benchmarks.codecs._pair import Pair
from benchmarks.codecs._pair import rows as pair_rows
from benchmarks.engines import Published
from benchmarks.machine import package, shared
from benchmarks.runner import Absent, Bench, Row
from fastcodec.codecs.base import Codec

NAME, KBPS = "lyra_v2", 9.2


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode of real speech."""
    yield from pair_rows(bench, {NAME: pair})


def pair() -> Pair:
    """Ours, our layers in plain torch, and LiteRT; the weights are Google's."""
    folder = weights_folder()
    codec = fastcodec.load(NAME, weights=folder)
    count = codec.encode(speech(0.1), bandwidth_kbps=KBPS).n_codebooks
    peers = [in_plain_torch(codec, count), LiteRt(folder).peer(count)]
    return Pair(NAME, folder, peers, KBPS, speech)


def in_plain_torch(codec: Codec, count: int) -> Published:
    """Our layers with every op served by its reference, the signal in one piece."""

    def encode(wav: Tensor) -> Tensor:
        with fastcodec.use_backend("reference"):
            return codec.quantizer.encode(codec.encoder(wav), count)

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        with fastcodec.use_backend("reference"):
            return codec.decoder(codec.quantizer.decode(codes))

    return Published(f"{package('torch')}, our layers", None, encode, decode)


def speech(seconds: float) -> Tensor:
    """[1, 1, S] float32 at 16 kHz, whole frames: a real clip, over and over."""
    with wave.open(str(shared("data", "lyra_v2", "sample1_16kHz.wav"))) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    frames = max(1, round(50 * seconds))
    return torch.from_numpy(np.resize(pcm, (1, 1, 320 * frames)) / np.float32(32768))


def weights_folder() -> Path:
    """The folder of float32 .tflite files, outside the repository."""
    folder = shared("data", "lyra_v2", "float32")
    if not folder.is_dir():
        raise Absent(f"no folder {folder}; set FASTCODEC_SHARED to where data/ is")
    return folder


class LiteRt:
    """The published graphs under ai-edge-litert, a frame a call as they are made for.

    They keep their state from one signal to the next: ``Interpreter.reset_all_variables`` does not
    bring the first one back (2.3.0), only a new interpreter does, whose making is not to be timed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.absent = None
        if not find_spec("ai_edge_litert"):
            self.absent = "not installed: pip install --no-deps ai-edge-litert"
        self._graphs: dict[tuple[str, int], Any] = {}

    def peer(self, n_codebooks: int) -> Published:
        """A peer, or the reason why there is none."""
        if self.absent is not None:
            return Published(package("ai-edge-litert"), absent=self.absent)
        return Published(
            f"{package('ai-edge-litert')}, a frame a call",
            None,
            lambda wav: self.encode(wav, n_codebooks),
            lambda codes, scale=None: self.decode(codes),
            settings=("float32",),
            renew=self.forget,
        )

    def encode(self, x: Tensor, n_codebooks: int) -> Tensor:
        """Codes [1, K, T] of whole frames."""
        frames = x[0, 0, : x.shape[2] // 320 * 320].view(-1, 1, 320).numpy()
        return torch.stack([self.encode_frame(f, n_codebooks) for f in frames], dim=1)[None]

    def decode(self, tokens: Tensor) -> Tensor:
        """wav [1, 1, S]."""
        return torch.cat([self.decode_frame(t) for t in tokens[0].T], dim=1)[None]

    def forget(self) -> None:
        """Start the next signal from the first state."""
        self._graphs.clear()

    def encode_frame(self, samples: np.ndarray, n_codebooks: int) -> Tensor:
        """Codes [K] of [1, 320] samples."""
        latent = _invoke(self._graph("soundstream_encoder"), samples)
        quantize = self._quantizer("encode")
        codes = quantize(num_quantizers=np.int32(n_codebooks), input_frames=latent)["output_0"]
        return torch.from_numpy(codes.reshape(-1)[:n_codebooks].astype(np.int64))

    def decode_frame(self, codes: Tensor) -> Tensor:
        """Samples [1, 320] of codes [K]."""
        every = np.full((46, 1, 1), -1, np.int32)
        every[: len(codes), 0, 0] = codes.numpy()
        latent = self._quantizer("decode")(encoding_indices=every)["output_0"]
        return torch.from_numpy(_invoke(self._graph("lyragan"), latent))

    def _graph(self, name: str, use: str = "") -> Any:
        """The interpreter of a file for torch's present number of threads, one for every use."""
        key = (name + use, torch.get_num_threads())
        if key not in self._graphs:
            from ai_edge_litert.interpreter import Interpreter

            path = str(self.folder / f"{name}.tflite")
            self._graphs[key] = Interpreter(path, num_threads=key[1])
            self._graphs[key].allocate_tensors()
        return self._graphs[key]

    def _quantizer(self, signature: str) -> Any:
        key = (signature, torch.get_num_threads())
        if key not in self._graphs:
            graph = self._graph("quantizer", signature)
            self._graphs[key] = graph.get_signature_runner(signature)
        return self._graphs[key]


def _invoke(graph: Any, value: np.ndarray) -> np.ndarray:
    graph.set_tensor(graph.get_input_details()[0]["index"], value)
    graph.invoke()
    output: np.ndarray = graph.get_tensor(graph.get_output_details()[0]["index"])
    return output
