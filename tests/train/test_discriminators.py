"""The discriminators beside upstream's own, and what holds for all of them."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import sys
from collections.abc import Callable
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from fastcodec.errors import WeightsError
from fastcodec.train.discriminators import NAMES, Judgement, build, load_weights
from fastcodec.train.discriminators.norms import normed

from .. import oracles
from ..golden import checks, run_discriminators
from ..golden.cases import all_cases

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES = 5000  # a transform of 2048 has several frames
CHANNELS = ("msd_hifigan", "msd_melgan", "audiodec_msd", "mpd_hifigan", "msstftd_encodec")


def small(name: str, **options: object) -> nn.Module:
    """A net of the kind with few channels, always the same."""
    torch.manual_seed(0)
    return build(name, width=1 / 16, **options)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def flattened(judgements: list[Judgement]) -> list[Tensor]:
    return [x for judgement in judgements for x in (judgement.score, *judgement.features)]


@pytest.mark.parametrize("name", NAMES)
def test_signals_of_a_batch_do_not_see_each_other(name: str) -> None:
    net = small(name).eval()
    x = noise(2, 1, SAMPLES)
    together = flattened(net(x))
    alone = [torch.cat(pair) for pair in zip(*(flattened(net(y[None])) for y in x), strict=True)]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert all(score.shape[0] == 2 for score in together)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_and_the_signal_get_a_finite_gradient(name: str) -> None:
    """Also from silence, where the angle of a complex number is not defined."""
    net = small(name)
    x = torch.cat([noise(1, 1, SAMPLES), torch.zeros(1, 1, SAMPLES)]).requires_grad_()
    loss = torch.stack([y.abs().square().mean() for y in flattened(net(x))]).sum()
    loss.backward()
    assert x.grad is not None and x.grad[0].any()
    for where, gradient in [("x", x.grad), *((n, p.grad) for n, p in net.named_parameters())]:
        assert gradient is not None and gradient.isfinite().all(), where


@pytest.mark.parametrize("name", ["mpd_hifigan", "mpd_dac"])
def test_gradient_of_a_whole_discriminator(name: str) -> None:
    net = build(name, periods=[3], width=1 / 32).double()
    x = noise(1, 1, 31).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: flattened(net(x)), x)


def test_gradient_through_complex_maps() -> None:
    torch.manual_seed(0)
    net = build("complex_stft", n_fft=512, width=1 / 32).double()
    x = noise(1, 1, 600).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x)[0].score, x, fast_mode=True)


@pytest.mark.parametrize("name", CHANNELS)
def test_stereo(name: str) -> None:
    x = noise(1, 2, SAMPLES)
    left_right, right_left = (small(name, channels=2)(y)[0].score for y in (x, x.flip(1)))
    assert not torch.allclose(left_right, right_left)
    with pytest.raises(ValueError, match=r"x must be \[B, 1, S\], got \[1, 2, 5000\].*channels"):
        small(name)(x)


def test_names_and_options_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="no discriminator is called 'mpd'; there are msd_hifigan"):
        build("mpd")
    with pytest.raises(ValueError, match="mpd_dac: no option scales; it takes periods, channels"):
        build("mpd_dac", scales=2)
    with pytest.raises(ValueError, match="norm must be one of none, weight, spectral, got 'layer'"):
        normed(nn.Conv1d(1, 1, 1), "layer")


def test_spectral_norm_is_torchs_first_one() -> None:
    """Three passes of training, with what they leave in the buffers, and one of evaluation."""
    ours, theirs = nn.Conv1d(4, 6, 5), nn.Conv1d(4, 6, 5)
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = normed(ours, "spectral"), torch.nn.utils.spectral_norm(theirs)
    norm = ours.parametrizations.weight[0]
    norm.u, norm.v = theirs.weight_u.clone(), theirs.weight_v.clone()
    x = noise(2, 4, 50)
    for training in (True, True, True, False):
        ours.train(training), theirs.train(training)
        ys = ours(x), theirs(x)
        torch.testing.assert_close(*ys)
        for y in ys:
            y.square().sum().backward()
    torch.testing.assert_close([norm.u, norm.v], [theirs.weight_u, theirs.weight_v])
    torch.testing.assert_close(ours.parametrizations.weight.original.grad, theirs.weight_orig.grad)


def test_two_passes_before_one_backward() -> None:
    """As a discriminator's step needs it: the power method's buffers change in between."""
    net = small("msd_hifigan")
    real, fake = net(noise(1, 1, 500)), net(noise(1, 1, 500, seed=2))
    torch.stack([j.score.mean() for j in (*real, *fake)]).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_audiodec_has_norms_without_upstreams_mistake() -> None:
    entries = [
        {name.rpartition(".")[2] for name in judge.state_dict()}
        for net in (
            build("audiodec_msd", width=1 / 16, norm_skips_conv1d=True),
            small("audiodec_msd"),
        )
        for judge in net.discriminators
    ]
    weight = {"bias", "original0", "original1"}
    assert entries == [{"bias", "weight"}] * 3 + [{"bias", "original", "u", "v"}, weight, weight]


def test_padding_to_a_period() -> None:
    """Of 20 samples, 5 rows of 4; DAC adds a reflected one, and AudioDec's score has one more."""
    rows = {
        name: build(name, periods=[4], width=1 / 32)(noise(1, 1, 20))[0]
        for name in ("mpd_hifigan", "mpd_dac", "audiodec_mpd")
    }
    assert [list(j.features[0].shape[2:]) for j in rows.values()] == [[2, 4], [2, 4], [2, 4]]
    assert [list(j.score.shape) for j in rows.values()] == [[1, 4], [1, 1, 1, 4], [1, 8]]
    longer = {n: build(n, periods=[2], width=1 / 32)(noise(1, 1, 12))[0] for n in rows}
    assert [j.features[0].shape[2] for j in longer.values()] == [2, 3, 2]


def test_level_and_offset_do_not_matter_to_dac() -> None:
    net, x = small("dac"), noise(1, 1, SAMPLES)
    torch.testing.assert_close(
        flattened(net(x)), flattened(net(0.1 * x + 0.3)), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("name", ["msstftd_encodec", "univnet", "complex_stft", "dac"])
def test_mixed_precision(name: str) -> None:
    """Also of a decoder's bfloat16: spectra are float32, torch has no transform of the other."""
    net, x = small(name), noise(1, 1, SAMPLES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = torch.cat([judgement.score.flatten() for judgement in net(x.bfloat16())])
    exact = torch.cat([judgement.score.flatten() for judgement in net(x)])
    assert (rounded - exact).square().mean() < 0.01 * exact.square().mean()


# Beside upstream's modules: (ours, theirs, what theirs says as ours is listed)
Says = Callable[[nn.Module, Tensor], list[Judgement]]


def _beside(ours: nn.Module, theirs: nn.Module, says: Says) -> None:
    load_weights(ours, theirs.state_dict())
    for samples in (SAMPLES, 4620):  # the second one divides by every period
        x = noise(2, 1, samples)
        expected = says(theirs, x)
        torch.testing.assert_close([tuple(j) for j in ours(x)], [tuple(j) for j in expected])


def test_beside_dac() -> None:
    theirs = oracles.descript("dac.model.discriminator").Discriminator()
    _beside(build("dac"), theirs, lambda net, x: [Judgement(m[-1], m) for m in net(x)])


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("mpd_hifigan", "MultiPeriodDiscriminator"),
        ("msd_hifigan", "MultiScaleDiscriminator"),
    ],
)
def test_beside_speechtokenizer(name: str, theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracles.speechtokenizer()
    monkeypatch.setitem(sys.modules, "torchaudio", MagicMock())
    module = importlib.import_module("speechtokenizer.discriminators")
    # It judges two signals at a time: in evaluation, where the power method does not go on.
    upstream = getattr(module, theirs)().eval()

    def says(net: nn.Module, x: Tensor) -> list[Judgement]:
        scores, _, maps, _ = net(x, x)
        return [Judgement(*pair) for pair in zip(scores, maps, strict=True)]

    _beside(build(name).eval(), upstream, says)


class _Spectrogram(nn.Module):
    """As torchaudio's with the arguments that FunCodec gives it."""

    def __init__(self, n_fft: int, hop_length: int, win_length: int, **options: object) -> None:
        super().__init__()
        expected = {"normalized": True, "center": False, "pad_mode": None, "power": None}
        assert options == {**expected, "window_fn": torch.hann_window} and n_fft == win_length
        self.sizes, self.window = (n_fft, hop_length), torch.hann_window(n_fft)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.stft(x[:, 0], *self.sizes, window=self.window, center=False, return_complex=True)
        return y[:, None] / self.window.square().sum().sqrt()


def test_beside_funcodec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy of EnCodec's, which also averages the scores."""
    oracles.funcodec()
    torchaudio = MagicMock()
    torchaudio.transforms.Spectrogram = _Spectrogram
    monkeypatch.setitem(sys.modules, "torchaudio", torchaudio)
    module = importlib.import_module("funcodec.models.discriminator.encodec_disc")
    upstream = module.MultiScaleSTFTDiscriminator(filters=32)
    ours = build("msstftd_funcodec", first_without_norm=True)
    _beside(ours, upstream, lambda net, x: [Judgement(*pair) for pair in net(x)])


def test_load_names_what_does_not_fit() -> None:
    state = build("mpd_hifigan", width=1 / 32).state_dict()
    net = build("mpd_hifigan", width=1 / 32)
    load_weights(net, state)  # torch's own spelling of weight norm, too
    del state["discriminators.0.conv_post.bias"]
    with pytest.raises(WeightsError, match="missing: discriminators.0.conv_post.bias"):
        load_weights(net, state)
    with pytest.raises(WeightsError, match=r"unexpected: mxd.discriminators.0"):
        load_weights(small("audiodec"), {"mxd.discriminators.0.conv_post.bias": torch.zeros(1)})


def test_whole_sets_take_upstreams_names() -> None:
    state = {
        f"msd.discriminators.0.layers.{i}.{'0.' if i < 7 else ''}conv.bias": torch.zeros(1)
        for i in range(8)
    } | {"mpd.discriminators.4.output_conv.conv.weight_g": torch.zeros(1)}
    with pytest.raises(WeightsError) as error:
        load_weights(small("audiodec"), state)
    assert "unexpected" not in str(error.value)
    names = {f"discriminators.1.{n}": v for n, v in small("msd_melgan").state_dict().items()}
    assert "unexpected" in str(
        pytest.raises(WeightsError, load_weights, small("soundstream"), names)
    )


def test_the_golden_runner_sees_every_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "REPORT", [])  # not a row of the table of real cases
    cases = [case for case in all_cases() if case.name == "disc_mpd_academicodec"]
    if not cases:
        pytest.skip("no golden vectors")
    for number in ("sum", "abs_sum", "sq_sum", "max_abs", "cos_dot", "layer"):
        entry = copy.deepcopy(dict(cases[0].entry))
        entry["feature_maps"][17][number] += 1
        with pytest.raises(pytest.fail.Exception, match=f"{number}|feature maps"):
            run_discriminators.run(dataclasses.replace(cases[0], entry=entry))
