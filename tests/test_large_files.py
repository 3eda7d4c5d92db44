"""No large file comes into the repository unseen (.ci/large_files.py, which lint and pre-commit run)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "large_files.py"
if not shutil.which("git"):
    pytest.skip("there is no git here", allow_module_level=True)


def check(folder, *options):
    done = subprocess.run([sys.executable, SCRIPT, *options], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / "small.bin").write_bytes(bytes(1_000_000))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    return tmp_path


def test_a_large_file_is_named_until_it_is_accepted(checkout):
    assert check(checkout) == (0, "")
    (checkout / "master.bin").write_bytes(bytes(1_000_001))
    assert check(checkout) == (0, "")  # git does not know it
    subprocess.run(["git", "add", "master.bin"], cwd=checkout, check=True)
    code, said = check(checkout)
    assert code == 1
    assert "master.bin (1.0 MB) is not in .ci/large_files.txt" in said
    assert "docs/development.md" in said
    assert check(checkout, "--accept")[0] == 0
    assert check(checkout) == (0, "")
    subprocess.run(["sha256sum", "-c", ".ci/large_files.txt"], cwd=checkout, check=True, stdout=subprocess.DEVNULL)


def test_other_bytes_and_files_that_are_gone_are_named(checkout):
    (checkout / "master.bin").write_bytes(bytes(2_000_000))
    subprocess.run(["git", "add", "master.bin"], cwd=checkout, check=True)
    check(checkout, "--accept")
    (checkout / "master.bin").write_bytes(b"1" * 2_000_000)
    code, said = check(checkout)
    assert code == 1
    assert "master.bin (2.0 MB) has other bytes" in said
    (checkout / "master.bin").unlink()
    code, said = check(checkout)
    assert code == 1
    assert "lists master.bin, which is not there" in said


def test_outside_a_checkout_it_says_that_it_did_not_look(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code, said = check(tmp_path)
    assert code == 0
    assert "not looked for" in said
