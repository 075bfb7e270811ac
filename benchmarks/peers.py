"""The published implementations, with the same weights, as fast as torch eager runs them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks.runner import Absent
from benchmarks.signals import wav, word_sizes
from fastcodec.codecs.encodec import EncodecConfig, transformers_name


def transformers_encodec(config: EncodecConfig, seed: int = 0) -> Any:
    """transformers' EncodecModel of a preset with random weights, in evaluation mode.

    Its constructor leaves the codebooks empty; they are made to fit the latents of a signal.
    """
    try:
        from transformers import EncodecConfig as TheirConfig
        from transformers import EncodecModel
        from transformers.utils import logging
    except ImportError as error:
        raise Absent(f"{error}; pip install --no-deps transformers, or make bench") from error

    logging.set_verbosity_error()
    torch.manual_seed(seed)
    seanet = config.seanet
    segment, stride = config.segment, config.segment_stride
    model = EncodecModel(
        TheirConfig(
            target_bandwidths=list(config.bandwidths_kbps),
            sampling_rate=config.sample_rate_hz,
            audio_channels=seanet.channels,
            normalize=segment is not None,
            chunk_length_s=segment / config.sample_rate_hz if segment else None,
            overlap=1 - stride / segment if segment and stride else None,
            num_filters=seanet.n_filters,
            upsampling_ratios=list(seanet.ratios),
            norm_type=seanet.norm,
            use_causal_conv=seanet.causal,
            pad_mode="constant" if seanet.padding == "zero" else seanet.padding,
            use_conv_shortcut=not seanet.true_skip,
            codebook_size=config.codebook_size,
        )
    ).eval()
    with torch.no_grad():
        latents = model.encoder(wav(config.sample_rate_hz, seanet.channels, 1))[0]
        for k, size in enumerate(word_sizes(len(model.quantizer.layers)).tolist()):
            book = model.quantizer.layers[k].codebook
            spread = latents.std() * size
            mean = latents.mean(dim=1) if k == 0 else 0.0
            book.embed.normal_().mul_(spread).add_(mean)
    return model


def upstream_encodec(config: EncodecConfig, weights: Mapping[str, Tensor]) -> Any:
    """PyPI's encodec model of the 24 or 48 kHz preset, with transformers' folded weights."""
    with torchaudio_stub():
        from encodec.model import EncodecModel
    make = {24000: EncodecModel.encodec_model_24khz, 48000: EncodecModel.encodec_model_48khz}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its weight norm is torch's old one
        model = make[config.sample_rate_hz](pretrained=False)
    fold_weight_norm(model)
    own = model.state_dict()
    model.load_state_dict(
        {name: weights[transformers_name(name)].view_as(value) for name, value in own.items()}
    )
    return model.eval()


@contextmanager
def torchaudio_stub() -> Iterator[None]:
    """encodec imports torchaudio, which it needs for files only; an empty module stands in."""
    if "torchaudio" in sys.modules:
        yield
        return
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    try:
        yield
    finally:
        del sys.modules["torchaudio"]


def fold_weight_norm(net: nn.Module) -> None:
    """Multiply weight norm out, in either of torch's forms: a peer need not do it at every call."""
    for layer in net.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
        elif hasattr(layer, "weight_g"):
            nn.utils.remove_weight_norm(layer)
