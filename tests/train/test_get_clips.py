"""The test clips are found where they are, and nothing else is taken for them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fastcodec.io import audio
from fastcodec.train.recipes import get_clips


def _package(folder: Path, n_clips: int) -> Path:
    """A .deb like pocketsphinx-testdata's, of empty files."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    root = folder / "root"
    files = [f"usr/share/pocketsphinx/test/data/{i:03}.wav" for i in range(n_clips)]
    for name in [*files, f"usr/share/doc/{get_clips.PACKAGE}/copyright", "DEBIAN/control"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    about = f"Package: {get_clips.PACKAGE}\nVersion: 1\nArchitecture: all\n"
    (root / "DEBIAN/control").write_text(about + "Maintainer: x <x@example.org>\nDescription: x\n")
    target = folder / "clips.deb"
    command = ["dpkg-deb", "--root-owner-group", "-b", str(root), str(target)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return target


def test_from_a_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = _package(tmp_path, 10)
    assert get_clips.main([str(tmp_path / "out"), "--deb", str(package)]) == 0
    names = {path.name for path in (tmp_path / "out" / "pocketsphinx").iterdir()}
    assert names == {f"{i:03}.wav" for i in range(10)} | {"copyright"}
    assert "10 clips" in capsys.readouterr().out


def test_another_package_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert get_clips.main([str(tmp_path / "out"), "--deb", str(_package(tmp_path, 3))]) == 1
    assert "expected 10 recordings, got 3" in capsys.readouterr().err
    assert get_clips.main([str(tmp_path / "out"), "--deb", str(tmp_path / "gone.deb")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_from_lyra(tmp_path: Path, shared: Path) -> None:
    found = get_clips.from_lyra(tmp_path / "out", shared / "data" / "lyra_v2")
    assert [path.name for path in found] == [*get_clips.LYRA, "LICENSE"]
    assert audio.probe(found[0]) == audio.AudioInfo(16_000, 1, 55_177)
    (tmp_path / "other").mkdir()
    for name in get_clips.LYRA:
        (tmp_path / "other" / name).write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="expected sha256 0aa66a6ad968f590"):
        get_clips.from_lyra(tmp_path / "out", tmp_path / "other")
