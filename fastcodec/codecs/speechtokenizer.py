"""SpeechTokenizer (Zhang et al. 2023, arXiv:2308.16692).

EnCodec's net, wider and not causal, and both ways through time in the encoder's LSTM. Its first
codebook was trained to carry what HuBERT hears of a word, the others the rest of the sound
(speechtokenizer/model.py@30c96fb3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastcodec.codecs.academicodec import AcademiEncodec
from fastcodec.codecs.encodec import EncodecConfig
from fastcodec.codecs.keys import snake_first, tag
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.codecs.settings import checked
from fastcodec.codecs.stream import below_autograd
from fastcodec.codes import Codes
from fastcodec.errors import WeightsError
from fastcodec.io.checkpoints import State
from fastcodec.layers.conv import Conv1d
from fastcodec.layers.streaming import StreamingModule


@dataclass(frozen=True)
class SpeechTokenizerConfig(EncodecConfig):
    """``semantic_dimension``: features of the teacher that the first codebook was trained with."""

    semantic_dimension: int = 768


CONFIG = SpeechTokenizerConfig


def _config(activation: str, hub: str = "") -> SpeechTokenizerConfig:
    net = SeanetConfig(
        dimension=1024, n_filters=64, causal=False, activation=activation, bidirectional=True
    )
    return SpeechTokenizerConfig(16000, net, 8, 1024, (), hub, "Apache-2.0")


PRESETS = {
    "speechtokenizer_16khz": _config("elu", "fnlp/SpeechTokenizer"),
    "speechtokenizer_16khz_snake": _config("snake", "fnlp/AnyGPT-speech-modules"),
}
_FILES = {
    "speechtokenizer_16khz": "speechtokenizer_hubert_avg/SpeechTokenizer.pt",
    "speechtokenizer_16khz_snake": "speechtokenizer/ckpt.dev",
}


class SpeechTokenizer(AcademiEncodec):
    """A SpeechTokenizer: the encoder needs whole signals, decoding streams."""

    config: SpeechTokenizerConfig
    files = _FILES

    def __init__(self, config: SpeechTokenizerConfig, name: str = "speechtokenizer") -> None:
        super().__init__(config, name)
        dimension = config.seanet.dimension
        self.transform: Conv1d | None = None
        if dimension != config.semantic_dimension:
            self.transform = tag(Conv1d(dimension, config.semantic_dimension, 1), "transform")

    def semantic_features(self, codes: Codes | Tensor) -> Tensor:
        """[B, T, semantic_dimension] float32: the first codebook's words as the teacher's features.

        Args:
            codes: from ``encode``, or tokens [B, K, T] int64; only the first codebook counts
        """
        tokens = codes.tokens if isinstance(codes, Codes) else codes
        self._check_tokens(tokens)
        with below_autograd(self.device):
            words = self.quantizer.decode(tokens[:, :1].to(self.device))
            return (words if self.transform is None else self.transform(words)).transpose(1, 2)

    def _tiles(
        self, length: int, frame: int, net: StreamingModule, rows: int
    ) -> Iterator[tuple[int, int]]:
        """Tiles of a signal to encode, too: its LSTM holds back what comes until all is there."""
        return super()._tiles(length, frame, self.decoder, rows)

    def _layout(self, state: State) -> Callable[[str], str]:
        return snake_first


# What upstream's model reads of its config.json, and what stands there for its training.
_DEFAULTS: dict[str, Any] = {
    "n_filters": 64, "strides": (8, 5, 4, 2), "dimension": 1024, "semantic_dimension": 768,
    "bidirectional": True, "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1,
    "lstm_layers": 2, "activation": "ELU", "codebook_size": 1024, "n_q": 8, "sample_rate": 16000,
}  # fmt: skip
_TRAINING = {
    "adam_b1", "adam_b2", "batch_size", "betas", "commitment_loss_lambda", "dist_config",
    "distill_loss_lambda", "distill_type", "epochs", "fmax", "fmax_for_loss", "fmin", "hop_size",
    "intial_learning_rate", "lambda_distill", "learning_rate", "log_steps", "lr_decay",
    "mel_loss_lambdas", "n_fft", "num_ckpt_keep", "num_freq", "num_gpus", "num_mels",
    "num_warmup_steps", "num_workers", "recon_loss_lambda", "resblock", "results_folder",
    "sampling_rate", "save_model_steps", "seed", "segment_size", "semantic_model_layer",
    "semantic_model_path", "showpiece_num", "stdout_steps", "train_files", "valid_files", "wd",
    "win_size",
}  # fmt: skip


def from_upstream(config: Mapping[str, Any]) -> SpeechTokenizerConfig:
    """The configuration that a ``config.json`` of upstream's describes.

    Raises:
        WeightsError: a setting that is not known, or a value that is not built
    """
    given = {name: value for name, value in config.items() if name not in _TRAINING}
    settings = checked("SpeechTokenizer", given, _DEFAULTS)
    rate, books, words, semantic = (
        settings.pop(n) for n in ("sample_rate", "n_q", "codebook_size", "semantic_dimension")
    )
    activation = settings.pop("activation")
    if activation not in ("ELU", "Snake"):
        raise WeightsError(f"SpeechTokenizer: activation must be ELU or Snake, got {activation!r}")
    net = SeanetConfig(
        ratios=settings.pop("strides"),
        lstm=settings.pop("lstm_layers"),
        causal=False,
        activation=activation.lower(),
        **settings,
    )
    return SpeechTokenizerConfig(rate, net, books, words, (), semantic_dimension=semantic)


def build(name: str, config: SpeechTokenizerConfig | None = None) -> SpeechTokenizer:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return SpeechTokenizer(config or PRESETS[name], name)
