"""The held-out curve: how well the averaged weights code recordings that training never saw."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.codecs.base import Codec
from fastcodec.train.config import Log
from fastcodec.train.data import Tape
from fastcodec.train.losses import mel


class HeldOut:
    """Signals of ``piece_s`` seconds, cut from the whole held-out tape at even distances."""

    piece_s = 2.0

    def __init__(self, tape: Tape, sample_rate_hz: int, log: Log) -> None:
        length, total = round(self.piece_s * sample_rate_hz), tape.samples.shape[1]
        length = min(length, total)
        count = max(1, min(int(log.held_out_s / self.piece_s), total // length))
        begins = [i * (total - length) // max(1, count - 1) for i in range(count)]
        self.wav = torch.stack([tape.wav(begin, begin + length) for begin in begins])
        self.rates = log.rates
        self.mel = mel("dac", sample_rate_hz)

    @torch.no_grad()
    def measure(self, codec: Codec) -> dict[str, float]:
        """DAC's mel distance and SI-SDR in dB per number of codebooks; share of words in use."""
        found: dict[str, float] = {}
        device = codec.device
        codes = codec.encode(self.wav.to(device))
        used = [row.unique().numel() for row in codes.tokens.transpose(0, 1)]
        found["used"] = round(sum(used) / len(used) / codec.quantizer.codebook_size, 4)
        for count in self.rates:
            decoded = codec.decode(codes.tokens[:, :count])[..., : self.wav.shape[2]].cpu()
            found[f"held_out_mel_{count}"] = round(float(self.mel(decoded, self.wav)), 5)
            found[f"held_out_si_sdr_{count}"] = round(float(si_sdr(decoded, self.wav).mean()), 3)
        return found


def si_sdr(decoded: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio [B, C] in dB of signals [B, C, S]."""
    target = target - target.mean(-1, keepdim=True)
    decoded = decoded - decoded.mean(-1, keepdim=True)
    scale = (decoded * target).sum(-1) / target.square().sum(-1).clamp(min=1e-8)
    part = scale[..., None] * target
    ratio = part.square().sum(-1) / (decoded - part).square().sum(-1).clamp(min=1e-8)
    return 10 * ratio.clamp(min=1e-8).log10()
