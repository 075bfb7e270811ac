"""The speech that fastcodec's weights are tested with and never trained on, as a folder of clips.

    python -m fastcodec.train.recipes.get_clips CLIPS [--lyra google-lyra/lyra/testdata]

Ten recordings, 34 s, of Debian's `pocketsphinx-testdata` (BSD-2-Clause; LibriVox readings, and
cards read out), by apt-get and dpkg-deb; and the two of google/lyra (Apache-2.0), 6 s, from a clone
of it. All natural speech at 16 kHz. The licences are put beside the clips.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "pocketsphinx-testdata"
N_CLIPS = 10
LYRA = {  # sha256 of each file, first 16 digits
    "sample1_16kHz.wav": "0aa66a6ad968f590",
    "sample2_16kHz.wav": "1e9deff2a32efd1a",
}


def from_debian(target: Path, package: Path | None = None) -> list[Path]:
    """The recordings of the Debian package, and its copyright file, copied into ``target``.

    Args:
        target: made if needed
        package: the .deb file; None downloads it

    Raises:
        FileNotFoundError: it cannot be downloaded, or holds something else
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if package is None:
            _run(["apt-get", "download", PACKAGE], folder)
            package = next(iter(folder.glob("*.deb")), folder / f"{PACKAGE}.deb")
        _run(["dpkg-deb", "-x", str(package.resolve()), "tree"], folder)
        sounds = sorted((folder / "tree").rglob("*.wav"))
        if len(sounds) != N_CLIPS:
            raise FileNotFoundError(f"{package}: expected {N_CLIPS} recordings, got {len(sounds)}")
        licence = folder / "tree/usr/share/doc" / PACKAGE / "copyright"
        return _copied([*sounds, licence], target / "pocketsphinx")


def from_lyra(target: Path, testdata: Path) -> list[Path]:
    """Lyra's two recordings, copied into ``target``.

    Raises:
        FileNotFoundError: ``testdata`` does not hold them
        ValueError: a recording is another one
    """
    for name, expected in LYRA.items():
        found = hashlib.sha256((testdata / name).read_bytes()).hexdigest()[:16]
        if found != expected:
            raise ValueError(f"{testdata / name}: expected sha256 {expected}…, got {found}…")
    places = [testdata / "LICENSE", *(folder / "LICENSE" for folder in testdata.resolve().parents)]
    licence = next((path for path in places if path.is_file()), None)
    files = [testdata / name for name in LYRA]
    return _copied(files if licence is None else [*files, licence], target / "lyra")


def _copied(files: Sequence[Path], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, folder / path.name)) for path in files]


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{command[0]} is needed, of a Debian or its like") from error
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise FileNotFoundError(f"{' '.join(command)}: {reason[0]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 1 where something could not be had."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path, help="folder for the clips")
    parser.add_argument("--deb", type=Path, help=f"{PACKAGE}'s .deb file, if it is there already")
    parser.add_argument("--lyra", type=Path, help="folder with sample1_16kHz.wav of google/lyra")
    options = parser.parse_args(argv)
    try:
        files = from_debian(options.target, options.deb)
        if options.lyra is not None:
            files += from_lyra(options.target, options.lyra)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    clips = [path for path in files if path.suffix == ".wav"]
    print(f"{len(clips)} clips in {options.target}")
    if options.lyra is None:
        print("without those of google/lyra: clone it and give --lyra lyra/lyra/testdata")
    return 0


if __name__ == "__main__":
    sys.exit(main())
