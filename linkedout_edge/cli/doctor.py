"""`linkedout-edge doctor`: what is installed, what works, and how to fix the rest."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

import click

from linkedout_edge import install
from linkedout_edge._telemetry import ADVICE, TOO_LATE, import_openvino
from linkedout_edge.cli.data import ENCODING_FIX, encoding_problem

Status: TypeAlias = Literal["ok", "warn", "fail"]

_CLIPS = 3
_TOLERANCE = 0.05
"""Scores of two backends may differ by this much from frames on: their int8 kernels round elsewhere. From tokens on it
is 1e-3 (bindings/conformance)."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What.
        status: ``fail`` where ranking will not work, ``warn`` where it will, but not as well as it could.
        found: What was seen.
        fix: What to do about it; "" if nothing.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


@click.command()
@click.option("--privacy", "show_privacy", is_flag=True, help="Show every stored file, and how to remove it.")
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Another folder than your data folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.pass_context
def doctor(ctx: click.Context, show_privacy: bool, data_dir: Path | None, as_json: bool) -> None:
    """Check this machine and installation, and explain how to fix problems.

    Looks at libraries, decoders and their licences, CPU and accelerators, verifies the built-in bundle, and ranks a few
    rendered clips with each backend to compare the answers. Nothing is sent anywhere.

    Exit code: 0, or 1 if something failed.
    """
    from linkedout_edge.cli.output import print_json

    if show_privacy:
        from linkedout_edge.cli.privacy import privacy

        ctx.invoke(privacy, data_dir=data_dir, as_json=as_json)
        return
    checks: list[Check] = []
    for check in examine(data_dir):
        checks.append(check)
        if not as_json:
            _show(check)
    failed = any(c.status == "fail" for c in checks)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(c) for c in checks]})
    else:
        _sum_up(checks)
    if failed:
        ctx.exit(1)


def examine(data_dir: Path | None = None) -> Iterator[Check]:
    """All checks, one after the other; one that breaks unexpectedly is a failed check and no stack trace."""
    steps: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("python", _python),
        ("libraries", _libraries),
        ("onnxruntime", _onnxruntime),
        ("openvino", _openvino),
        ("decoding", _decoders),
        ("processor", _processor),
        ("bundle", _bundle),
        ("ranking", _ranking),
        ("history and store", lambda: _storage(data_dir)),
    ]
    for name, step in steps:
        try:
            yield from step()
        except Exception as e:  # noqa: PERF203
            yield Check(
                name, "fail", f"{type(e).__name__}: {e}", "report this, with the output of linkedout-edge doctor --json"
            )


def _storage(data_dir: Path | None) -> Iterator[Check]:
    """Whether what the commands keep is sound, found out without its key and without changing it."""
    import contextlib
    import sqlite3

    from linkedout_edge.cli.data import default_data_dir
    from linkedout_edge.cli.privacy import describe
    from linkedout_edge.storage import FILE_NAME

    folder = data_dir or default_data_dir()
    path = folder / FILE_NAME
    if not path.exists():
        yield Check("history and store", "ok", f"nothing is stored in {folder}")
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2)) as con:
            sound = con.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
    except sqlite3.DatabaseError:
        sound = False
    if sound:
        yield Check("history and store", "ok", f"{path}: {describe(path)}")
    else:
        fix = "run linkedout-edge history list: it sets the damaged file aside and recovers what can be read"
        yield Check("history and store", "warn", f"{path} is damaged or cannot be read", fix)
    for damaged in sorted(folder.glob(f"{FILE_NAME}.damaged-*")):
        fix = "remove it when nothing is missing; history clear removes it as well"
        yield Check("history and store", "warn", f"a damaged database was set aside as {damaged.name}", fix)


def _python() -> Iterator[Check]:
    from linkedout_edge._version import __version__

    yield Check("linkedout-edge", "ok", __version__)
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    if problem := encoding_problem():
        yield Check("file names", "warn", problem, ENCODING_FIX)


def _libraries() -> Iterator[Check]:
    for module, package in (("numpy", "numpy"), ("msgspec", "msgspec")):
        check, _ = _import(module, package)
        yield check


def _import(module: str, package: str, needed: Status = "fail") -> tuple[Check, Any]:
    """The library's version and module, or how to install it; a native library that is missing counts as well."""
    try:
        loaded = import_openvino() if module == "openvino" else importlib.import_module(module)
    except ImportError as e:
        absent = isinstance(e, ModuleNotFoundError) and e.name == module
        found = "not installed" if absent else f"installed, but cannot be loaded: {e}"
        return Check(
            module, needed, found, install.library(package, options="" if absent else "--force-reinstall")
        ), None
    version = str(getattr(loaded, "__version__", "")) or _version(package) or "unknown version"
    return Check(module, "ok", version), loaded


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _onnxruntime() -> Iterator[Check]:
    check, ort = _import("onnxruntime", "onnxruntime")
    if ort is None:
        yield check
        return
    yield Check(check.name, "ok", f"{check.found}, providers: {', '.join(ort.get_available_providers())}")
    yield Check("telemetry of onnxruntime", *(("warn", "on", ADVICE) if TOO_LATE else ("ok", "off")))
    bundle = _builtin()
    if bundle:
        from linkedout_edge.cli.accelerators import onnxruntime_providers

        for name, well, found, fix in onnxruntime_providers(ort, bundle):
            yield Check(name, "ok" if well else "warn", found, fix)


def _openvino() -> Iterator[Check]:
    check, openvino = _import("openvino", "openvino", needed="warn")
    if openvino is None:
        yield Check("openvino", "ok", f"{check.found} (optional)", check.fix)
        return
    devices = openvino.Core().available_devices
    yield Check(check.name, "ok", f"{check.found}, devices: {', '.join(devices) or 'none'}")
    bundle = _builtin()
    if bundle:
        from linkedout_edge.cli.accelerators import openvino_devices

        for name, well, found, fix in openvino_devices(devices, bundle):
            yield Check(name, "ok" if well else "warn", found, fix)


def _builtin() -> str:
    """A precision of the built-in bundle to try things with; "" without one."""
    from linkedout_edge.bundle.reader import embedded_precisions

    names = embedded_precisions()
    return "int8" if "int8" in names else "".join(names[:1])


def _decoders() -> Iterator[Check]:
    check, av = _import("av", "av", needed="warn")
    if av is None:
        yield Check("PyAV", "warn", f"{check.found}; OpenCV decodes instead, slower", check.fix)
    else:
        found, fix = _ffmpeg_license(av)
        yield Check("PyAV", "ok", f"{check.found}, its FFmpeg: {found}", fix)
    check, cv2 = _import("cv2", "opencv-python-headless")
    if cv2 is None:
        yield Check("OpenCV", "fail", check.found, check.fix)
        return
    has_ffmpeg = any("FFMPEG" in line and "YES" in line for line in cv2.getBuildInformation().splitlines())
    if has_ffmpeg:
        yield Check("OpenCV", "ok", f"{check.found}, its FFmpeg: LGPL version 2.1 or later (in the wheels of PyPI)")
    else:
        yield Check(
            "OpenCV",
            "warn" if av else "fail",
            f"{check.found}, built without FFmpeg: only PyAV decodes",
            install.library("av"),
        )


def _ffmpeg_license(av: Any) -> tuple[str, str]:
    """The licence that PyAV's FFmpeg comes under, and what that means for an app."""
    meta = getattr(getattr(av, "_core", None), "library_meta", {}).get("libavcodec", {})
    stated, built = str(meta.get("license", "")) or "licence unknown", str(meta.get("configuration", ""))
    # Recent wheels state the LGPL, and are linked with encoders that are under the GPL.
    gpl = [name for name in ("x264", "x265", "xvid") if f"--enable-lib{name}" in built]
    if not gpl and not stated.startswith("GPL"):
        return stated, ""
    found = f"{stated}, built with {' and '.join(gpl)} (GPL)" if gpl else stated
    return found, "an app that ships it must comply with the GPL; without it, OpenCV decodes: docs/decoding.md"


def _processor() -> Iterator[Check]:
    from linkedout_edge.backends import cpu
    from linkedout_edge.rank.scorer import NUMPY, PATHS
    from linkedout_edge.threads import available_cpus, cgroup_quota

    cores, quota, used = os.cpu_count() or 1, cgroup_quota(), available_cpus()
    limit = "no cgroup quota" if quota is None else f"cgroup quota {quota:g}"
    yield Check("processor", "ok", f"{used} threads will be used ({cores} cores, {limit})")
    found = cpu.instruction_set()
    if found.fast_int8:
        yield Check("int8 instructions", "ok", str(found))
    else:
        fix = "int8 still takes a quarter of the memory of fp32; nothing to fix on this processor"
        yield Check("int8 instructions", "warn", f"{found}: int8 gains less speed here", fix)
    if PATHS[0] != NUMPY:
        yield Check("scores", "ok", f"computed by the {PATHS[0]} kernel")
    else:
        fix = "install a C compiler, then linkedout-edge again; scores are the same, lists take longer"
        yield Check("scores", "warn", "computed by NumPy: the package was installed without its kernel", fix)
    if found.overflows:
        refused = "graphs that have them (int8 for TensorRT) are neither run nor compared here"
        yield Check("full-range int8 weights", "ok", f"would overflow on this CPU without VNNI: {refused}")
    else:
        yield Check("full-range int8 weights", "ok", "run on this CPU")


def _bundle() -> Iterator[Check]:
    from linkedout_edge.bundle import open_bundle
    from linkedout_edge.bundle.reader import embedded_precisions
    from linkedout_edge.cli.inspect import inspect_bundle

    again = install.again()
    names = embedded_precisions()
    if not names:
        yield Check("built-in bundle", "fail", "there is none in this installation", again)
        return
    with open_bundle(names[0]) as bundle:
        found = inspect_bundle(bundle)
    if found["verified"]:
        yield Check("built-in bundle", "ok", f"{bundle.manifest.name} in {', '.join(names)}, checksums agree")
    else:
        yield Check("built-in bundle", "fail", "; ".join(found["problems"]), again)


def _ranking() -> Iterator[Check]:
    """Rank rendered clips with every backend there is, and compare."""
    bundle = _builtin()
    if not bundle:
        return
    with tempfile.TemporaryDirectory(prefix="linkedout-edge-") as folder:
        clips = _clips(Path(folder))
        reference: dict[str, float] | None = None
        for backend in ("onnxruntime", "openvino"):
            name = f"ranking with {backend}"
            if importlib.util.find_spec(backend) is None:
                continue
            try:
                scores, found = _rank(bundle, backend, clips)
            except Exception as e:
                again = install.library(backend, options="--force-reinstall")
                yield Check(name, "fail", f"{type(e).__name__}: {e}", again)
                continue
            if reference is None:
                reference = scores
                yield Check(name, "ok", found)
                continue
            worst = max(abs(scores[k] - reference[k]) for k in reference)
            if worst <= _TOLERANCE:
                yield Check(name, "ok", f"{found}; the same scores within {worst:.1e}")
            else:
                fix = "use one backend throughout, and report this with the output of doctor --json"
                yield Check(name, "warn", f"{found}; scores differ from onnxruntime's by up to {worst:.1e}", fix)


def _clips(folder: Path) -> list[str]:
    import numpy as np

    from linkedout_edge.microworld import random_attributes, write_clip

    rng = np.random.default_rng(7)
    paths = [folder / f"clip{i}.mp4" for i in range(_CLIPS + 1)]
    for seed, path in enumerate(paths):
        write_clip(path, random_attributes(rng), seed, size=128, fps=8, seconds=2.0)
    return [str(p) for p in paths]


def _rank(bundle: str, backend: str, clips: list[str]) -> tuple[dict[str, float], str]:
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import duration

    with Recommender.load(bundle, backend=backend) as rec:
        rec.warmup()
        ranking = rec.rank(clips[:1], clips[1:])
        devices = ", ".join(dict.fromkeys(rec.info().devices.values()))
    if ranking.failed:
        raise RuntimeError(f"a rendered clip could not be used: {ranking.failed[0].reason}")
    order = " > ".join(Path(i).stem for i in ranking.ids)
    took = duration(ranking.timing.encode / len(clips))
    return {r.id: r.score for r in ranking}, f"{order} on {devices}, {took} a video"


_MARKS: dict[Status, tuple[str, str]] = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


def _show(check: Check) -> None:
    from linkedout_edge.cli.output import console, plain

    mark, style = _MARKS[check.status]
    line = plain(f"{mark} ", style).append_text(plain(f"{check.name}: ", "bold")).append_text(plain(check.found))
    console().print(line)
    if check.fix:
        console().print(plain(f"    → {check.fix}", "" if check.status == "fail" else "dim"))


def _sum_up(checks: list[Check]) -> None:
    from linkedout_edge.cli.output import console, plain

    counts = {s: sum(c.status == s for c in checks) for s in _MARKS}
    console().print()
    if counts["fail"]:
        console().print(plain(f"{counts['fail']} failed: ranking will not work until that is fixed.", "red"))
    else:
        hint = f" {counts['warn']} could be better." if counts["warn"] else ""
        console().print(plain(f"Ready.{hint}", "green"))
