"""``fastcodec demo``: the bundled clip through a codec and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastcodec.cli import console, options


def demo(
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec",
            "-c",
            show_default=False,
            help="A preset. Without it: what the weights say they are, or fastcodec_16khz.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="PATH",
            envvar="FASTCODEC_WEIGHTS",
            show_default=False,
            help="The codec's checkpoint; for lyra_v2 the folder with its three .tflite files. "
            "Those of fastcodec_16khz are in the package.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the results go.")
    ] = Path("demo"),
    as_json: options.Json = False,
) -> None:
    """Encode and decode nine seconds of speech that come with fastcodec.

    Writes original.wav and decoded.wav to listen to, codes.safetensors, and
    demo.png to look at: the spectrograms before and after, and the codes.

    [bold]Examples[/bold]

    [cyan]fastcodec demo[/cyan]  → nothing else is needed

    [cyan]fastcodec demo --weights lyra/model_coeffs[/cyan]  → Lyra v2

    [cyan]fastcodec demo --codec encodec_24khz[/cyan]  → weights from the hub
    """
    from fastcodec import demo as demonstration

    result = demonstration.run(codec, weights, out)
    if as_json:
        console.say_json(result.as_dict())
        return
    console.say_facts(
        {
            "clip": f"{result.duration_s:.2f} s of speech",
            "codec": result.codec,
            "rate": f"{result.kbps:g} kbps: {result.n_codebooks} codebooks at "
            f"{result.frame_rate_hz:g} Hz",
            "encode": f"{result.encode_rtf:.1f}× real time ({result.encode_s * 1e3:.0f} ms)",
            "decode": f"{result.decode_rtf:.1f}× real time ({result.decode_s * 1e3:.0f} ms)",
            "log-mel distance": f"{result.log_mel_distance_db:.2f} dB",
            "original": str(result.original),
            "decoded": str(result.decoded),
            "codes": str(result.codes),
            "picture": str(result.figure),
        }
    )
