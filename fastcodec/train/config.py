"""What a training run is, as dataclasses that a TOML file fills."""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastcodec.optional import require
from fastcodec.train.codebook_options import CodebookOptions
from fastcodec.train.data import Augmentation

Made = TypeVar("Made")


@dataclass(frozen=True)
class Data:
    """Crops of ``crop_s`` seconds, ``batch`` of them a step and process."""

    crop_s: float = 0.64
    batch: int = 8
    held_out_percent: float = 5.0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Optimizer:
    """AdamW, and a learning rate that rises, stays, and falls to zero over the last steps.

    ``average``: decay a step of the averaged weights, which are the ones tested and written.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.0
    warmup_steps: int = 200
    falling_steps: int = 2000
    clip_norm: float = 1.0
    average: float = 0.999


@dataclass(frozen=True)
class Losses:
    """Weights of the terms, none where 0.

    ``mel``: mean absolute difference of log-mel spectra over windows of ``mel_windows`` samples
    with ``mel_bins`` bands, no band below ``mel_floor`` (1 is white noise at full scale);
    ``stft``: spectral convergence and log magnitudes (Parallel WaveGAN's); ``waveform``: mean
    absolute difference of samples. ``balanced``: the weights of all but the commitment are shares
    of the gradient at the decoder's output (EnCodec's balancer), the adversarial ones', too.
    """

    mel: float = 1.0
    mel_windows: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    mel_bins: tuple[int, ...] = (12, 24, 40, 64, 80)
    mel_floor: float = 1e-3
    stft: float = 0.0
    waveform: float = 10.0
    commitment: float = 1.0
    balanced: bool = False


@dataclass(frozen=True)
class Adversarial:
    """Discriminators by name, from step ``start`` on; none where the tuple is empty.

    ``width``: times their usual numbers of channels; ``kind``: of the losses, a key of
    ``adversarial.GANS``; ``features_kind``: of the feature matching, a key of ``FEATURES``;
    ``weight`` and ``features``: of the two in the generator's loss.
    """

    discriminators: tuple[str, ...] = ()
    width: float = 1.0
    start: int = 0
    kind: str = "least_squares"
    features_kind: str = "relative"
    weight: float = 1.0
    features: float = 2.0
    learning_rate: float = 2e-4


@dataclass(frozen=True)
class Log:
    """How often, in steps, the curve gets a line and the held-out recordings are coded.

    ``rates``: numbers of codebooks tested; ``held_out_s``: seconds of them at most.
    """

    every: int = 100
    held_out_every: int = 1000
    held_out_s: float = 60.0
    rates: tuple[int, ...] = (2, 4, 8)
    checkpoint_minutes: float = 5.0
    tensorboard: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """All of a run but where its data and its results are.

    ``threads``: of torch, its own choice where 0; ``autocast``: encoder and decoder in bfloat16;
    ``compile``: them by torch.compile, which takes minutes at the start. ``unquantised``: share of
    a batch's items that skip the quantizer, so that features can grow which no code word has yet
    (as Mimi was trained, arXiv:2410.00037).
    """

    preset: str = "fastcodec_16khz"
    steps: int = 100_000
    seed: int = 1
    threads: int = 0
    autocast: bool = False
    compile: bool = False
    unquantised: float = 0.0
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    losses: Losses = field(default_factory=Losses)
    codebooks: CodebookOptions = field(default_factory=CodebookOptions)
    adversarial: Adversarial = field(default_factory=Adversarial)
    log: Log = field(default_factory=Log)


def read(path: Path) -> TrainConfig:
    """The configuration in a TOML file; what it leaves out has its default.

    Raises:
        ValueError: not TOML, or a setting that is unknown or of the wrong type, named
    """
    toml = require("tomllib" if sys.version_info >= (3, 11) else "tomli", "train", "a recipe")
    try:
        table = toml.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding, too
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    return from_table(TrainConfig, table, str(path))


def from_table(kind: type[Made], table: Mapping[str, Any], where: str) -> Made:
    """A dataclass from nested mappings, as TOML and JSON give them."""
    types_, known = typing.get_type_hints(kind), [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(table) - set(known)):
        raise ValueError(
            f"{where}: unknown setting{'s' * (len(unknown) > 1)} {', '.join(unknown)}; known: "
            f"{', '.join(known)}"
        )
    values = {name: _value(types_[name], v, f"{where}: {name}") for name, v in table.items()}
    return kind(**values)


def _value(wanted: Any, value: Any, where: str) -> Any:
    if is_dataclass(wanted) and isinstance(wanted, type) and isinstance(value, Mapping):
        return from_table(wanted, value, where)
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is tuple and isinstance(value, list | tuple):
        if inner[-1] is Ellipsis:
            inner = (inner[0],) * len(value)
        if len(inner) == len(value):
            return tuple(_value(t, v, where) for t, v in zip(inner, value, strict=True))
    elif origin is typing.Literal and value in inner:
        return value
    elif wanted is float and type(value) in (int, float):
        return float(value)
    elif type(value) is wanted:
        return value
    name = wanted.__name__ if origin is None else str(wanted).removeprefix("typing.")
    raise ValueError(f"{where} must be {name}, got {value!r}")
