"""The examples run, on the bundle that ships."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def lines_of(*arguments: object) -> list[str]:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_rank_folder(clips: list[Path], tmp_path: Path) -> None:
    for clip in clips[1:]:
        (tmp_path / clip.name).write_bytes(clip.read_bytes())
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    lines = lines_of(EXAMPLES / "rank_folder.py", clips[0], "--", tmp_path)
    assert len(lines) == len(clips)
    assert "clip0.mp4" in lines[0]  # the reason
    assert lines[-1].lstrip().startswith("not ranked: ")


def test_app_frames() -> None:
    assert [line.split()[0] for line in lines_of(EXAMPLES / "app_frames.py")] == ["1", "2", "3", "4", "5"]
