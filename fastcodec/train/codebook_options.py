"""How codebooks are trained, and how each published codec trains them (Table II of the survey)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class CodebookOptions:
    """How codebooks are trained; the last four are what upstreams do by mistake, or differently.

    Args:
        learned: words are parameters that ``Quantized.codebook`` moves, from where they are
            (HiFi-Codec); what else concerns averages, k-means and restarts does not apply then
        decay: of the moving averages
        smoothing: of the codes' usage before it divides: ``"laplace"`` adds epsilon to each and
            keeps the sum; ``"floor"`` keeps it from falling below epsilon
        kmeans_iterations: at the start of each codebook; 0 starts from the words that it has
        kmeans_resample: in each of them an empty cluster takes a random latent (Mimi), else it
            keeps its mean
        restart_below: a code used less is replaced by a random latent; a share of the mean usage
        restart_absolute: it is a number of latents per batch instead
        restart_every: steps
        dropout: share of a batch's items that are given a random number of codebooks
        dropout_to: the numbers to choose from, as far as there are so many codebooks; every number
            where empty
        dropout_by_batch: one number for the whole batch, ``dropout`` being how likely that is
        gradient: through the quantizer: straight, or turned and scaled as the latent was
            (arXiv:2410.06424)
        all_at_once: k-means for all codebooks on the first batch, even where the ones before left
            nothing over; else one codebook a batch, and codebooks are used from then on
        means_for_sums: after k-means the averages of sums hold means (EnCodec)
        restart_undone: a restart replaces the word only, and the average overwrites it (EnCodec)
        first_commits_alone: the commitment of further codebooks has no gradient, their input being
            the straight-through estimate's rest (EnCodec; AudioDec, who mean it)
    """

    learned: bool = False
    decay: float = 0.99
    smoothing: Literal["laplace", "floor"] = "laplace"
    epsilon: float = 1e-5
    kmeans_iterations: int = 50
    kmeans_resample: bool = False
    restart_below: float = 0.1
    restart_absolute: bool = False
    restart_every: int = 5
    dropout: float = 0.0
    dropout_to: tuple[int, ...] = ()
    dropout_by_batch: bool = False
    gradient: Literal["straight_through", "rotation"] = "straight_through"
    all_at_once: bool = False
    means_for_sums: bool = False
    restart_undone: bool = False
    first_commits_alone: bool = False


# encodec/quantization/core_vq.py@0e2d0aed, whose file most others took over. The numbers of
# codebooks are those of its bandwidths, of one of which a batch is (arXiv:2210.13438, section 3.2).
_ENCODEC = CodebookOptions(
    restart_below=2.0,
    restart_absolute=True,
    restart_every=1,
    all_at_once=True,
    means_for_sums=True,
    restart_undone=True,
    first_commits_alone=True,
)
_BANDWIDTHS = (2, 4, 8, 16, 32)

OPTIONS: dict[str, CodebookOptions] = {
    "encodec": replace(_ENCODEC, dropout=1.0, dropout_by_batch=True, dropout_to=_BANDWIDTHS),
    # audiocraft/quantization/@896ec7c
    "audiocraft": replace(_ENCODEC, dropout=1.0, dropout_by_batch=True, first_commits_alone=False),
    "speechtokenizer": _ENCODEC,
    # funcodec/modules/quantization/ddp_core_vq.py@3435d870
    "funcodec": replace(_ENCODEC, dropout=1.0, dropout_by_batch=True, dropout_to=_BANDWIDTHS),
    # AudioDec/layers/vq_module.py@e451e625
    "audiodec": CodebookOptions(
        decay=0.8, kmeans_iterations=0, restart_below=0.0, first_commits_alone=True
    ),
    # moshi/quantization/core_vq.py@e6a55d27
    "mimi": CodebookOptions(
        smoothing="floor", kmeans_resample=True, dropout=1.0, dropout_by_batch=True
    ),
    # AcademiCodec/academicodec/models/hificodec/vqvae.py@b6ac1347
    "hificodec": CodebookOptions(learned=True, first_commits_alone=True),
    # arXiv:2107.03312, section III-C
    "soundstream": CodebookOptions(
        restart_below=2.0, restart_absolute=True, restart_every=1, all_at_once=True, dropout=1.0
    ),
    # descript-audio-codec/conf@c7cfc5d2, snac/vq.py@f49016a4
    "dac": CodebookOptions(dropout=0.5),
    "snac": CodebookOptions(),
}
