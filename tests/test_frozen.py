"""Apps that carry the package with them: PyInstaller, zipapps, and what they are told if the bundle is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import linkedout_edge
from linkedout_edge import Recommender, errors
from linkedout_edge.__pyinstaller import get_hook_dirs
from linkedout_edge.bench.workers import Worker
from linkedout_edge.bundle import reader
from linkedout_edge.cli import main, report

PACKAGE = Path(linkedout_edge.__file__).parent
APP = """
import linkedout_edge
from linkedout_edge import Recommender
with Recommender.load("int8", threads=1) as rec:
    print(linkedout_edge.__file__, rec.info().precision, Recommender.load("int4", threads=1).info().precision)
"""

needs_bundle = pytest.mark.skipif(not reader.embedded_precisions(), reason="this copy has no built-in bundle")


def hook(name: str) -> dict[str, Any]:
    """What a hook gives to PyInstaller."""
    pytest.importorskip("PyInstaller")
    (folder,) = get_hook_dirs()
    return runpy.run_path(str(Path(folder) / f"hook-{name}.py"))


def test_pyinstaller_is_told_where_the_hooks_are() -> None:
    told = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'\[project\.entry-points\.pyinstaller40\]\nhook-dirs = "(.+):(.+)"', told)
    assert found
    module = importlib.import_module(found[1])
    assert getattr(module, found[2]) is get_hook_dirs
    hooks = {p.name.removeprefix("hook-").removesuffix(".py") for p in Path(get_hook_dirs()[0]).glob("hook-*.py")}
    assert hooks
    assert all(importlib.util.find_spec(name) for name in hooks)  # a hook runs when a module of its name is imported


@needs_bundle
def test_the_hook_takes_all_files_of_the_bundle() -> None:
    taken = {(Path(to) / Path(file).name).as_posix() for file, to in hook("linkedout_edge")["datas"]}
    there = [p for p in (PACKAGE / "bundles" / "base").rglob("*") if p.is_file()]
    assert {p.relative_to(PACKAGE.parent).as_posix() for p in there} == taken


def test_the_hook_takes_the_whole_command_line() -> None:
    told = hook("linkedout_edge.cli.main")
    assert {f"linkedout_edge.cli.{command}" for command in main.COMMANDS} <= set(told["hiddenimports"])
    files = {Path(file).name for file, _ in told["datas"]}
    assert report.TEMPLATE in files
    assert any(to.endswith("-info") for _, to in told["datas"])  # entry points and extras


def test_a_frozen_app_without_the_bundle_is_told_what_to_add(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(reader, "embedded_folder", lambda: tmp_path)
    with pytest.raises(errors.BundleNotFoundError, match="--collect-data linkedout_edge"):
        Recommender.load("int8")


def test_a_frozen_app_does_not_start_itself_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(errors.BackendError, match="frozen"):
        Worker({})


def zipapp(path: Path, *, bundle: bool) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("__main__.py", APP)
        for file in PACKAGE.rglob("*"):
            inside = file.relative_to(PACKAGE.parent)
            if file.is_file() and file.suffix != ".pyc" and (bundle or "bundles" not in inside.parts):
                archive.write(file, inside)
    return path


def start(path: Path) -> str:
    # Not -I: dependencies may be in a folder that PYTHONPATH names. An archive comes before it.
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@needs_bundle
def test_a_zipapp_ranks_with_the_bundle_inside_it(tmp_path: Path) -> None:
    said = start(zipapp(tmp_path / "app.pyz", bundle=True))
    assert said.split() == [str(tmp_path / "app.pyz" / "linkedout_edge" / "__init__.py"), "int8", "int4"], said


def test_a_zipapp_without_the_bundle_is_told_what_to_add(tmp_path: Path) -> None:
    said = start(zipapp(tmp_path / "app.pyz", bundle=False))
    assert "BundleNotFoundError: the package is inside an archive that lacks its built-in bundle" in said
    assert "pip install" not in said


@needs_bundle
def test_a_damaged_zipapp_is_a_damaged_bundle(tmp_path: Path) -> None:
    path = tmp_path / "app.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("base/manifest.json", "{" * 100)
    source = reader._Archived(zipfile.Path(path, "base/"))
    with pytest.raises(errors.BundleCorruptError, match="more than 10 bytes"):
        source.read("manifest.json", 10)
    with pytest.raises(errors.BundleCorruptError, match="cannot be read from the archive"):
        source.read("onnx/int8/encoder.onnx", 10)


@needs_bundle
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_frozen_app_ranks(tmp_path: Path) -> None:
    pytest.importorskip("PyInstaller")
    (tmp_path / "app.py").write_text(APP)
    # The package and its hooks are named: PyInstaller does not find what is installed in place.
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--paths", str(PACKAGE.parent)]
    command += ["--additional-hooks-dir", *get_hook_dirs()]
    excluded = [o for m in ("torch", "transformers", "openvino", "matplotlib") for o in ("--exclude-module", m)]
    subprocess.run([*command, *excluded, "app.py"], cwd=tmp_path, check=True, capture_output=True, timeout=800)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [tmp_path / "dist" / "app" / "app"], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.stdout.split()[1:] == ["int8", "int4"], done.stderr
