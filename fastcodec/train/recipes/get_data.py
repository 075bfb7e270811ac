"""The speech that fastcodec's weights are trained on, as a folder of 16 kHz recordings.

    python -m fastcodec.train.recipes.get_data SPEECH

Debian's telephone prompts, studio speech of four speakers in five languages, are downloaded by
apt-get and decoded from G.722 by PyAV (``pip install av``). ``data.tsv`` in the folder lists every
recording; the packages' copyright files are put beside it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastcodec.io import audio
from fastcodec.optional import require
from fastcodec.train.config import Data
from fastcodec.train.data import is_held_out

RATE_HZ = 16000
VERSION = "1.6.1-1"
LICENCES = {  # by the packages' debian/copyright
    "asterisk-core-sounds-en-g722": "CC-BY-SA-3.0, Allison Smith",
    "asterisk-core-sounds-es-g722": "CC-BY-SA-3.0, Allison Smith",
    "asterisk-core-sounds-fr-g722": "CC-BY-SA-3.0, June Wallack",
    "asterisk-core-sounds-it-g722": "CC-BY-3.0, Carlo Flora",
    "asterisk-core-sounds-ru-g722": "CC-BY-3.0, Maxim Topal",
}


def main() -> None:
    """Download, unpack, decode, list."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("speech", type=Path, help="folder to fill")
    target: Path = parser.parse_args().speech
    target.mkdir(parents=True, exist_ok=True)
    rows = [row for package in LICENCES for row in from_debian(package, target)]
    text = "\n".join(["file\tseconds\tpart", *rows]) + "\n"
    (target / "data.tsv").write_text(text, encoding="utf-8")
    print(f"{len(rows)} recordings in {target}")


def from_debian(package: str, target: Path) -> Iterator[str]:
    """Decode a package's prompts into ``target``/``package``; rows of the list.

    Raises:
        OSError: it cannot be downloaded or unpacked
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(["apt-get", "download", package], folder)
        file = next(folder.glob("*.deb"))
        _run(["dpkg-deb", "-x", file.name, "tree"], folder)
        if (version := _run(["dpkg-deb", "-f", file.name, "Version"], folder).strip()) != VERSION:
            print(f"{package}: version {version}; the weights are of {VERSION}")
        (target / package).mkdir(exist_ok=True)
        shutil.copy(folder / "tree/usr/share/doc" / package / "copyright", target / package)
        sounds = folder / "tree/usr/share/asterisk/sounds"
        for path in sorted(p for p in sounds.rglob("*.g722") if p.stat().st_size):
            wav = decoded(path)
            prompt = "_".join(path.relative_to(sounds).with_suffix("").parts)
            recording = f"{package}/{prompt}.flac"
            audio.write(target / recording, wav, RATE_HZ)
            part = "held out" if is_held_out(recording, Data().held_out_percent) else "training"
            seconds = wav.shape[1] / RATE_HZ
            yield f"{recording}\t{seconds:.2f}\t{part}"


def decoded(path: Path) -> Tensor:
    """[1, S] float of a bare G.722 file."""
    av = require("av", "train", "decoding G.722")
    with av.open(str(path), format="g722") as container:
        parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return torch.from_numpy(np.concatenate(parts)).float()[None] / 32768


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
