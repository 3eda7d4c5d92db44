"""From a finished training to a bundle: export, quantize, measure, write."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np
import onnx
from linkedout_quant.evaluation.exam import pool_videos, product_scores, take_exam
from linkedout_quant.evaluation.metrics import rank_agreement
from linkedout_quant.master import PROMPT, PROMPTS, load_student, set_prompt
from linkedout_quant.media import find_media, load_frames
from linkedout_quant.model import Student
from linkedout_quant.progress import stage, track
from linkedout_quant.tokenizer import from_portable
from linkedout_quant.training.stills import CameraPath, clip_of

from linkedout_edge import Recommender, Video
from linkedout_edge.bundle.manifest import MANIFEST, Calibration, Manifest, parse_manifest
from linkedout_edge.config import ModelConfig
from linkedout_edge.decode.base import slot_centers
from linkedout_edge.errors import ArgumentError
from linkedout_edge.microworld import make_exam, random_attributes, render_frames
from linkedout_export.graphs import export_encoder, parity
from linkedout_export.quantization import Feeds, quantize_int4, quantize_int8
from linkedout_export.sensitivity import choose_int8, onnx_runner, token_agreement, tokens_of
from linkedout_export.user_model import fit_user_model
from linkedout_export.writer import write_bundle, write_manifest

LAST_TRUST = 4.0
"""How far a student's last layer is trusted before anything is known of a user, where each other layer has 1."""


def calibration_feeds(config: ModelConfig, data: Path | None, clips: int = 96, seed: int = 77) -> list[Feeds]:
    """Encoder inputs for calibration: micro-videos and, where there is data, its photos and videos, in turn."""
    rng = np.random.default_rng(seed)
    times = np.array(slot_centers(config.frames, 1.0))
    media = find_media([data]) if data else []
    chosen = [media[i] for i in rng.permutation(len(media))[: clips // 2]]
    shown = load_frames(chosen, config.frames, config.frame_size * 2)[1] if chosen else []
    feeds = []
    for i in track(range(clips), "rendering clips to calibrate with"):
        if shown and i % 2:
            picture = shown[i // 2 % len(shown)]
            frames = clip_of(picture, CameraPath.random(picture.shape[1:], rng), times, config.frame_size)
        else:
            frames = render_frames(random_attributes(rng), int(rng.integers(2**31)), times, config.frame_size)
        # Titles are rare in use and short; random words keep the ranges of their embeddings in view.
        words = int(rng.integers(0, config.title_tokens + 1)) if i % 4 == 0 else 0
        ids = rng.integers(2, config.vocab_size, (1, config.title_tokens)).astype(np.int32)
        title = np.arange(config.title_tokens)[None] < words
        feeds.append(
            {
                "frames": frames[None],
                "frame_mask": np.ones((1, config.frames), bool),
                "title_ids": ids * title,
                "title_mask": title,
            }
        )
    return feeds


def trust_in_layers(layers: int) -> list[float]:
    """How far a student's layers are trusted before anything is known of a user: the last one most (LAST_TRUST)."""
    return [1.0] * (layers - 1) + [LAST_TRUST]


def origin(run: Path) -> tuple[str, str]:
    """License and provenance of a run's weights, from what it remembers of its teacher and media."""
    told = json.loads((run / "run.json").read_text(encoding="utf-8")) if (run / "run.json").exists() else {}
    provenance = "Trained on clips of the micro-video world, rendered by linkedout_edge.microworld."
    if not told.get("teacher"):
        return "Apache-2.0", provenance
    return (
        "Apache-2.0; trained on photos or videos whose own licenses apply, see provenance",
        f"{provenance} And on {told['media']} photos and videos ({told['sources']}), "
        f"with {told['teacher']} as teacher.",
    )


def write_float_bundle(
    run: Path, out: Path, *, name: str = "base", data: Path | None = None, clips: int = 96
) -> Manifest:
    """Export a run to a bundle with fp32 alone: what `quantize` starts from.

    Raises:
        ArgumentError: the run is not finished.
        BackendError: the graph does not compute what torch computes.
    """
    student = load_student(run)
    stage("exporting the graph, and comparing it with torch")
    exact = export_encoder(student.encoder)
    worst = parity(student.encoder, exact)
    return _write(run, student, {"fp32": exact}, calibration_feeds(student.config, data, clips), out, name, data, worst)


def _write(
    run: Path,
    student: Student,
    precisions: dict[str, onnx.ModelProto],
    feeds: list[Feeds],
    out: Path,
    name: str,
    data: Path | None,
    worst: float,
    *,
    prompt: str = PROMPT,
    agreement: dict[str, dict[str, float]] | None = None,
) -> Manifest:
    license, provenance = origin(run)
    return write_bundle(
        out,
        student,
        precisions,
        (run / "tokenizer.json").read_bytes(),
        fit_user_model(tokens_of(onnx_runner(precisions["fp32"]), feeds), trust_in_layers(student.config.layers)),
        name=name,
        prompt=prompt,
        calibration=Calibration(
            description="micro-videos" + (" and clips of photos and videos, in turn" if data else ""),
            videos=len(feeds),
        ),
        license=license,
        provenance=provenance,
        agreement=agreement,
        parity={"encoder": worst},
    )


def build(
    run: Path,
    data: Path | None,
    out: Path,
    *,
    name: str = "base",
    users: int = 120,
    method: str = "auto",
    prompt: str | None = None,
) -> Manifest:
    """Export a run to a bundle with int8, int4 and fp32, its agreement measured on clips and the micro-video exam.

    Args:
        run: folder of a finished training.
        data: photos and videos to calibrate on, beside micro-videos.
        out: folder of the bundle.
        name: of the bundle.
        users: exam users per length of history; 0 leaves the exam out.
        method: calibration method, or "auto": the one that measures best.
        prompt: one of `linkedout_quant.master.PROMPTS` by name, or a sentence; by default the general one.

    Raises:
        ArgumentError: the run is not finished, an unknown method, or an empty prompt.
        BackendError: the graph does not compute what torch computes.
    """
    student = load_student(run)
    config = student.config
    asked = PROMPT if prompt is None else PROMPTS.get(prompt, prompt).strip()
    if not asked:
        raise ArgumentError(f"the prompt is empty: give {', '.join(PROMPTS)}, or a sentence")
    if prompt is not None:
        set_prompt(student, from_portable((run / "tokenizer.json").read_bytes()), asked)
    stage("exporting the graph, and comparing it with torch")
    exact = export_encoder(student.encoder)
    worst = parity(student.encoder, exact)
    feeds, held_out = calibration_feeds(config, data), calibration_feeds(config, data, 16, seed=78)
    choice = choose_int8(exact, feeds, held_out, method)
    stage("quantizing to int8 and int4")
    precisions = {
        "int8": quantize_int8(exact, feeds, method=choice.method, keep=choice.keep),
        "int4": quantize_int4(exact, feeds, method=choice.method, keep=choice.keep),
        "fp32": exact,
    }
    want = tokens_of(onnx_runner(exact), held_out)
    agreement = {p: token_agreement(want, m, held_out) for p, m in precisions.items()}
    manifest = _write(run, student, precisions, feeds, out, name, data, worst, prompt=asked, agreement=agreement)
    return add_agreement(out, list(precisions), users) if users else manifest


def add_agreement(bundle: Path, precisions: list[str], users: int) -> Manifest:
    """Measure precisions against fp32 on the exam's users, and add to the manifest what was found.

    That is NDCG@10, its ratio, Kendall's tau, overlap of the ten best.
    """
    manifest = parse_manifest((bundle / MANIFEST).read_bytes())
    exam = make_exam(users_per_length=users)
    videos: list[Video] = pool_videos(exam, manifest.config.frame_size, manifest.config.frames)
    now = datetime.now(timezone.utc)
    ndcg, scores = {}, {}
    for precision in dict.fromkeys([*precisions, "fp32"]):
        stage(f"taking the exam in {precision}")
        with Recommender.load(bundle, precision=precision) as rec:
            report = take_exam(rec, exam, videos)
            ndcg[precision] = float(np.mean([row["product"]["ndcg@10"] for row in report.values()]))
            scores[precision] = [product_scores(rec, u, now) for u in exam.users]
    entries = dict(manifest.precisions)
    for precision in precisions:
        tau, overlap = np.mean(
            [rank_agreement(a, b) for a, b in zip(scores[precision], scores["fp32"], strict=True)], 0
        )
        measured = {
            "exam_ndcg@10": round(ndcg[precision], 4),
            "exam_ndcg@10_ratio": round(ndcg[precision] / ndcg["fp32"], 4),
            "kendall_tau": round(float(tau), 4),
            "top10_overlap": round(float(overlap), 4),
        }
        told = {**entries[precision].agreement, **measured}
        entries[precision] = msgspec.structs.replace(entries[precision], agreement=told)
    manifest = msgspec.structs.replace(manifest, precisions=entries)
    write_manifest(bundle, manifest)
    return manifest


def embed(bundle: Path, target: Path, precisions: tuple[str, ...] = ("int8", "int4")) -> Manifest:
    """Copy a bundle with only the given precisions: what goes into the package."""
    manifest = parse_manifest((bundle / MANIFEST).read_bytes())
    kept = msgspec.structs.replace(manifest, precisions={p: manifest.precisions[p] for p in precisions}, exports={})
    shutil.rmtree(target, ignore_errors=True)
    paths = [kept.tokenizer.path, *(f.path for p in kept.precisions.values() for f in p.files.values())]
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / path, target / path)
    write_manifest(target, kept)
    return kept
