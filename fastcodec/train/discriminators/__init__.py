"""The discriminators of the codecs' training: one file a kind, and ``build`` by name.

Each is called with a signal [B, C, S] and returns a list of ``Judgement``: a score and the feature
maps of every discriminator in it, which ``adversarial`` makes losses of.

Upstreams' mistakes are options, off unless asked for; their own checkpoints need them on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from torch import nn

from fastcodec.train.discriminators.bands import dac, mrd_dac
from fastcodec.train.discriminators.complex_stft import complex_stft
from fastcodec.train.discriminators.judgement import Judgement, Judges, Panel
from fastcodec.train.discriminators.loading import load_weights
from fastcodec.train.discriminators.mpd import mpd
from fastcodec.train.discriminators.msd import audiodec_msd, msd_hifigan, msd_melgan
from fastcodec.train.discriminators.stft import FIVE_SCALES, msstftd
from fastcodec.train.discriminators.univnet import univnet

__all__ = ["NAMES", "Judgement", "Judges", "Panel", "build", "load_weights"]


def audiodec(width: float = 1.0, norm_skips_conv1d: bool = False) -> Panel:
    """AudioDec's set: three scales, then five periods; arguments as of ``audiodec_msd``."""
    return Panel(
        msd=audiodec_msd(width=width, norm_skips_conv1d=norm_skips_conv1d),
        mpd=mpd("audiodec", width=width),
    )


def audiodec_univ(width: float = 1.0) -> Panel:
    """The set of AudioDec's models named "univ": three resolutions, then five periods."""
    return Panel(mrsd=univnet(width=width), mpd=mpd("audiodec", width=width))


def hificodec(width: float = 1.0, first_without_norm: bool = False) -> Panel:
    """The set of HiFi-Codec and SpeechTokenizer: five periods, three scales, five transforms.

    Args:
        width: multiplies the numbers of channels
        first_without_norm: as of ``msstftd``
    """
    return Panel(
        mpd=mpd(width=width),
        msd=msd_hifigan(width=width),
        msstftd=msstftd(FIVE_SCALES, width=width, first_without_norm=first_without_norm),
    )


def soundstream(width: float = 1.0) -> Panel:
    """SoundStream's set: three scales, then the complex spectrum."""
    return Panel(
        discriminators=msd_melgan(width=width), stft_discriminator=complex_stft(1024, width)
    )


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "msd_hifigan": msd_hifigan,
    "msd_melgan": msd_melgan,
    "audiodec_msd": audiodec_msd,
    "mpd_hifigan": partial(mpd, "hifigan"),
    "mpd_dac": partial(mpd, "dac"),
    "audiodec_mpd": partial(mpd, "audiodec"),
    "mpd_academicodec": partial(mpd, "academicodec"),
    "msstftd_encodec": msstftd,
    "msstftd_5scales": partial(msstftd, FIVE_SCALES),
    "msstftd_audiocraft": partial(msstftd, FIVE_SCALES, slope=0.3),
    "msstftd_funcodec": partial(msstftd, pooled=True),
    "mrd_dac": mrd_dac,
    "univnet": univnet,
    "complex_stft": complex_stft,
    "dac": dac,
    "audiodec": audiodec,
    "audiodec_univ": audiodec_univ,
    "hificodec": hificodec,
    "speechtokenizer": hificodec,
    "soundstream": soundstream,
}
NAMES = tuple(_BUILDERS)


def build(name: str, **options: object) -> nn.Module:
    """A discriminator, or a codec's whole set of them, with new weights.

    Args:
        name: one of ``NAMES``
        options: as of the function that builds it: ``width`` (times the usual numbers of channels)
            with all, ``channels`` (C of the signals) with most, and each kind's own figures

    Raises:
        ValueError: no such name or option; the message lists what there is
    """
    if name not in _BUILDERS:
        raise ValueError(f"no discriminator is called {name!r}; there are {', '.join(NAMES)}")
    signature = inspect.signature(_BUILDERS[name])
    unknown = set(options) - set(signature.parameters)
    if unknown:
        raise ValueError(
            f"discriminator {name}: no option {', '.join(sorted(unknown))}; it takes "
            f"{', '.join(signature.parameters)}"
        )
    return _BUILDERS[name](**options)
