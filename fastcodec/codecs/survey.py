"""Table I of "Towards audio language modeling - an overview" (Wu et al. 2024, arXiv:2402.13236)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SurveyRow:
    """A model as the survey lists it, the preset that is it, and where upstream differs.

    ``n_codebooks`` and ``kbps`` are the survey's; they pick one of a preset's bit rates.
    """

    row: str
    name: str
    preset: str
    n_codebooks: int
    kbps: float
    differs: str = ""


_UNIV = "weights of their own, otherwise hifi_16k_320d"
_GUESSED = "config.yaml not public: give the published folder, whose own config is then used"

TABLE_I = (
    SurveyRow("A", "SpeechTokenizer 16k", "speechtokenizer_16khz", 8, 4,
              "distilled from the mean of all HuBERT layers, not from layer 9"),
    SurveyRow("B1", "hifi_16k_320d", "hifi_16k_320d", 4, 2),
    SurveyRow("B2", "hifi_16k_320d_large_uni", "hifi_16k_320d_large_uni", 4, 2, _UNIV),
    SurveyRow("B3", "hifi_24k_320d", "hifi_24k_320d", 4, 3),
    SurveyRow("C", "AudioDec 24k_320d", "audiodec_24khz_libritts", 8, 6.4,
              "hop 300, 80 Hz: 24k_320d was never published"),
    SurveyRow("D1", "DAC 16k", "dac_16khz", 12, 6),
    SurveyRow("D2", "DAC 24k", "dac_24khz", 32, 24),
    SurveyRow("D3", "DAC 44k", "dac_44khz", 9, 8, "7.75 kbps"),
    SurveyRow("E1", "EnCodec 24k 1.5 kbps", "encodec_24khz", 2, 1.5),
    SurveyRow("E2", "EnCodec 24k 3 kbps", "encodec_24khz", 4, 3),
    SurveyRow("E3", "EnCodec 24k 6 kbps", "encodec_24khz", 8, 6),
    SurveyRow("E4", "EnCodec 24k 12 kbps", "encodec_24khz", 16, 12),
    SurveyRow("E5", "EnCodec 24k 24 kbps", "encodec_24khz", 32, 24),
    SurveyRow("F1", "en_libriTTS_16k_gr1nq32ds320", "freqcodec_en_16k_gr1nq32ds320", 32, 16,
              _GUESSED),
    SurveyRow("F2", "en_libriTTS_16k_gr8nq32ds320", "freqcodec_en_16k_gr8nq32ds320", 32, 16,
              _GUESSED),
    SurveyRow("F3", "en_libriTTS_16k_nq32ds320", "funcodec_en_16k_nq32ds320", 32, 16),
    SurveyRow("F4", "en_libriTTS_16k_nq32ds640", "funcodec_en_16k_nq32ds640", 32, 8, _GUESSED),
    SurveyRow("F5", "zh_en_16k_nq32ds320", "funcodec_zh_en_16k_nq32ds320", 32, 16),
    SurveyRow("F6", "zh_en_16k_nq32ds640", "funcodec_zh_en_16k_nq32ds640", 32, 8, _GUESSED),
)  # fmt: skip
