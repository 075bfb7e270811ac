"""EnCodec's entropy model and the arithmetic-coded container in a case (rule 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcodec import _host
from fastcodec.codecs.encodec_lm import EntropyLM, TorchProbabilities, entropy_model
from fastcodec.codes import Codes
from fastcodec.io.checkpoints import load_strict
from fastcodec.io.ecdc import EcdcFile, read_ecdc, read_ecdc_header, write_ecdc
from fastcodec.io.entropy import ProbabilityModel

from .cases import Case
from .checks import Checks


def is_lm(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is the language model's."""
    return any(key.startswith("transformer.") for key in state)


def run(case: Case, state: Mapping[str, Tensor], codes: Codes, checks: Checks) -> None:
    """Compare probabilities, distributions and bytes, of the torch model and the compiled one."""
    sizes = case.config["lm"]
    lm = EntropyLM(
        sizes["n_q"], sizes["past_context"], sizes["card"], sizes["dim"], sizes["num_layers"]
    )
    load_strict(lm, state, case.id)
    models = (TorchProbabilities(lm), entropy_model(state, sizes["past_context"]))
    first = codes.tokens[0, :, : case.entry["segment_frames"][0]].numpy()
    for model in models:
        checks.floats("pdf", _predicted(model, first, case.arrays["pdf"].shape[0]))
    if checks.has("pdf_one_call"):
        _one_call(case, lm, first, checks)
    if checks.has("cdf"):
        _distributions(case, checks)
    if checks.has("ecdc", "ecdc_lm"):
        _stored_stream(case, first, checks)
        _container(case, codes, models, checks)


def _predicted(
    model: ProbabilityModel, codes: NDArray[np.int64], frames: int
) -> NDArray[np.float32]:
    """[frame, symbol, codebook] probabilities of the first frames, one frame a call."""
    step = model.start(len(codes))
    before = [None, *codes.T[: frames - 1]]
    return np.stack([step(previous).T for previous in before])


@torch.no_grad()
def _one_call(case: Case, lm: EntropyLM, codes: NDArray[np.int64], checks: Checks) -> None:
    frames = case.arrays["pdf_one_call"].shape[0]
    pdf = lm.eval()(torch.from_numpy(codes)[None])[0, ..., :frames]
    checks.floats("pdf_one_call", pdf.permute(2, 0, 1))


def _distributions(case: Case, checks: Checks) -> None:
    """The stored probabilities of the first and the last frame give exactly the stored counts."""
    pdf = case.arrays["pdf"].full[[0, -1]].transpose(0, 2, 1)  # [frame, codebook, symbol]
    rows = np.ascontiguousarray(pdf.reshape(-1, pdf.shape[2]))
    checks.exact("cdf", lambda: _host.quantized_cdf(rows))


def _stored_stream(case: Case, codes: NDArray[np.int64], checks: Checks) -> None:
    """The arithmetic coder by upstream's own bytes, which the stored probabilities explain.

    They are of the segment's first frames: decoded with them, the stored stream must give those
    frames' codes; encoded with them, the codes must give the stream's first bytes.
    """
    stored = case.arrays["ecdc_lm"].full.tobytes()
    header = read_ecdc_header(stored)
    start = len(header.to_bytes()) + (4 if header.layout.has_scale else 0)
    pdf = np.ascontiguousarray(case.arrays["pdf"].full.transpose(0, 2, 1))
    decoder, encoder = _host.ArithmeticDecoder(stored[start:]), _host.ArithmeticEncoder()
    with checks.of("ecdc_lm"):
        for frame, probabilities in zip(codes.T, pdf, strict=False):
            counts = _host.quantized_cdf(probabilities)
            np.testing.assert_array_equal(decoder.pull(counts), frame)
            encoder.push(frame, counts)
        begin = encoder.finish()[:-8]  # the end still depends on what would follow: 61 bits
        assert len(begin) > 8 and stored[start:].startswith(begin), "the encoded bytes differ"


def _container(
    case: Case, codes: Codes, models: tuple[ProbabilityModel, ...], checks: Checks
) -> None:
    """Each model reads back what it wrote; the torch one is upstream's where its bits are."""
    reference = case.arrays["ecdc_lm"]
    stored, pdf = reference.full.tobytes(), case.arrays["pdf"]
    plain = read_ecdc(case.arrays["ecdc"].full.tobytes())
    file = EcdcFile(plain.model, plain.n_samples, plain.n_codebooks, True, plain.segments)
    for model in models:
        with checks.of("ecdc_lm"):
            written = write_ecdc(file, model=model)
            read = read_ecdc(written, lambda header, model=model: model).to_codes()
            assert torch.equal(read.tokens, codes.tokens), f"{model.name}: other codes read back"
    torch_model = models[0]
    ours = _predicted(torch_model, codes.tokens[0].numpy(), pdf.shape[0])
    alike = bool((ours == pdf.full).all())
    checks.measured["pdf_bits_equal"] = float(alike)
    if alike:
        checks.exact("ecdc_lm", np.frombuffer(write_ecdc(file, model=torch_model), np.uint8))
        with checks.of("ecdc_lm"):
            read = read_ecdc(stored, lambda header: torch_model).to_codes()
            assert torch.equal(read.tokens, codes.tokens), "the stored file gives other codes"
