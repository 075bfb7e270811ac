"""The speech that fastcodec's weights are trained on, as a folder of 16 kHz recordings.

    python -m fastcodec.train.recipes.get_data SPEECH

Debian's packages of recorded speech under free licences, six speakers in six languages, are
downloaded by apt-get and decoded (``pip install av`` for G.722). ``data.tsv`` in the folder lists
every recording; the packages' copyright files are put beside them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastcodec.io import audio
from fastcodec.optional import require
from fastcodec.train.config import Data
from fastcodec.train.data import is_held_out

RATE_HZ = 16000


@dataclass(frozen=True)
class Package:
    """Recordings ``pattern`` under /usr/share/``folder``; ``licence``: by debian/copyright."""

    version: str
    folder: str
    pattern: str
    licence: str


def _prompts(licence: str) -> Package:
    return Package("1.6.1-1", "asterisk/sounds", "*.g722", licence)


PACKAGES = {
    "asterisk-core-sounds-en-g722": _prompts("CC-BY-SA-3.0, Allison Smith"),
    "asterisk-core-sounds-es-g722": _prompts("CC-BY-SA-3.0, Allison Smith"),
    "asterisk-core-sounds-fr-g722": _prompts("CC-BY-SA-3.0, June Wallack"),
    "asterisk-core-sounds-it-g722": _prompts("CC-BY-3.0, Carlo Flora"),
    "asterisk-core-sounds-ru-g722": _prompts("CC-BY-3.0, Maxim Topal"),
    "festvox-ru": Package(
        "0.5+dfsg-6", "festival/voices/russian/msu_ru_nsh_clunits", "*.wav",
        "Festival's licence (MIT-like), Nickolay V. Shmyrev",
    ),
    "gcin-voice": Package(  # the syllables called 3.ogg are under GPL-3
        "0~20170223-3", "gcin-voice/ogg", "5.ogg", "CC-BY-3.0, Chu Lo and ChionMeilin"
    ),
}  # fmt: skip


def main() -> None:
    """Download, unpack, decode, list."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("speech", type=Path, help="folder to fill")
    target: Path = parser.parse_args().speech
    target.mkdir(parents=True, exist_ok=True)
    rows = [row for name, package in PACKAGES.items() for row in fetched(name, package, target)]
    text = "\n".join(["file\tseconds\tpart", *rows]) + "\n"
    (target / "data.tsv").write_text(text, encoding="utf-8")
    print(f"{len(rows)} recordings in {target}")


def fetched(name: str, package: Package, target: Path) -> Iterator[str]:
    """Decode a package's recordings into ``target``/``name``; rows of the list.

    Raises:
        OSError: it cannot be downloaded or unpacked
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _run(["apt-get", "download", name], folder)
        file = next(folder.glob("*.deb"))
        _run(["dpkg-deb", "-x", file.name, "tree"], folder)
        version = _run(["dpkg-deb", "-f", file.name, "Version"], folder).strip()
        if version != package.version:
            print(f"{name}: version {version}; the weights are of {package.version}")
        (target / name).mkdir(exist_ok=True)
        shutil.copy(folder / "tree/usr/share/doc" / name / "copyright", target / name)
        sounds = folder / "tree/usr/share" / package.folder
        for path in sorted(p for p in sounds.rglob(package.pattern) if p.stat().st_size):
            parts = path.relative_to(sounds).with_suffix("").parts
            recording = f"{name}/{'_'.join(parts)}.flac"
            wav = decoded(path) if path.suffix == ".g722" else audio.read(path, RATE_HZ, 1)[0]
            audio.write(target / recording, wav, RATE_HZ)
            part = "held out" if is_held_out(recording, Data().held_out_percent) else "training"
            yield f"{recording}\t{wav.shape[1] / RATE_HZ:.2f}\t{part}"


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
