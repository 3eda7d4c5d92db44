"""The golden vectors, against both inference libraries: what a binding in another language has to do as well."""

import itertools
import json
import platform
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from linkedout_edge import Event, Recommender, Video, errors
from linkedout_edge.bundle import open_bundle
from linkedout_edge.scoring import event_features
from linkedout_edge.store import Fingerprint
from linkedout_edge.text import Tokenizer

FOLDER = Path(__file__).parents[1] / "bindings" / "conformance"
GOLDEN = json.loads((FOLDER / "golden.json").read_text())
TOLERANCE = GOLDEN["tolerance"]["score"]


def frames_of(row):
    strip = cv2.cvtColor(cv2.imread(str(FOLDER / row["frames"])), cv2.COLOR_BGR2RGB)
    return strip.reshape(row["frame_count"], -1, strip.shape[1], 3)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def backend(request):
    pytest.importorskip(request.param)
    return request.param


def load(backend):
    bundle = GOLDEN["bundle"]
    rec = Recommender.load(bundle["precision"], backend=backend)
    assert rec.info().token_space == bundle["token_space"], "the bundle changed: run `make golden`"
    return rec


@pytest.fixture(scope="module")
def rec(backend):
    """With the golden tokens in its store."""
    with load(backend) as rec:
        for v in GOLDEN["videos"]:
            rec.store.put(
                v["id"], np.array(v["tokens"], np.int8), np.array(v["scales"], np.float32), Fingerprint(v["id"])
            )
        yield rec


@pytest.fixture(scope="module")
def seen(backend):
    """With tokens made from the golden frames."""
    with load(backend) as rec:
        rec.encode([Video(frames=frames_of(v), id=v["id"], title=v["title"] or None) for v in GOLDEN["videos"]])
        yield rec


def rounds_alike(rec):
    """Whether the kernels are those that the vectors were made with."""
    made = GOLDEN["made_with"]
    return rec.info().versions.get("onnxruntime") == made["onnxruntime"] and platform.machine() == made["machine"]


def test_tokens_from_frames(seen):
    limits = GOLDEN["tolerance"]
    for row in GOLDEN["videos"]:
        tokens, scales, _ = seen.store.gather(seen.store.rows([row["id"]]))
        got, scale = tokens[0] * scales[0][..., None], np.array(row["scales"])[..., None]
        want = np.array(row["tokens"]) * scale
        if rounds_alike(seen):
            assert np.abs((got - want) / scale).max() <= limits["token_steps"], row["id"]
        cosine = (got * want).sum(-1) / np.linalg.norm(got, axis=-1) / np.linalg.norm(want, axis=-1)
        assert cosine.min() >= limits["token_cosine"], row["id"]


def test_scores_from_frames(seen):
    limit = TOLERANCE if rounds_alike(seen) else GOLDEN["tolerance"]["score_from_frames"]
    now = datetime.now(timezone.utc)
    for case in GOLDEN["cases"]:
        for r in seen.rank(events_of(case, now), case["candidates"]):
            assert r.score == pytest.approx(case["scores"][r.id], abs=limit), case["name"]


def events_of(case, now):
    return [
        Event(
            f"video{e['video']}",
            watched=e.get("watched", 1.0),
            liked=e.get("liked"),
            at=now - timedelta(hours=e["age_hours"]) if "age_hours" in e else None,
        )
        for e in case["events"]
    ]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: c["name"])
def test_cases(rec, case):
    now = datetime.now(timezone.utc)
    events = events_of(case, now)
    features = event_features(events, now)
    np.testing.assert_allclose(features, np.array(case["event_features"]).reshape(features.shape), atol=1e-5)
    ranking = rec.rank(events, case["candidates"])
    assert sorted(ranking.ids) == sorted(case["order"])
    scores = case["scores"]
    for r in ranking:
        assert r.score == pytest.approx(scores[r.id], abs=TOLERANCE)
        np.testing.assert_allclose(r.layers, case["contributions"][r.id], atol=TOLERANCE)
        matrix = np.array(case["explanations"][r.id]).reshape(len(events), len(r.layers))
        np.testing.assert_allclose(r.explain().matrix.reshape(matrix.shape), matrix, atol=TOLERANCE)
        assert matrix.sum() == pytest.approx(r.score, abs=2 * TOLERANCE)
    got = [scores[i] for i in ranking.ids]
    assert all(a >= b - TOLERANCE for a, b in itertools.pairwise(got)), "the order differs by more than the tolerance"


@pytest.mark.parametrize("row", GOLDEN["titles"], ids=lambda r: ascii(r["text"])[:20])
def test_titles(row):
    with open_bundle(GOLDEN["bundle"]["precision"]) as bundle:
        assert Tokenizer.from_json(bundle.tokenizer()).encode(row["text"]) == row["ids"]


@pytest.mark.parametrize("row", GOLDEN["errors"], ids=lambda r: r["what"])
def test_errors(rec, row):
    def call():
        if row["call"] == "load":
            return Recommender.load(row["bundle"])
        candidates = row.get("candidates", ["video0"])
        if "frames_dtype" in row:
            candidates = [Video(frames=np.zeros((8, 16, 16, 3), row["frames_dtype"]), id="wrong")]
        if "frames_shape" in row:
            candidates = [Video(frames=np.zeros(row["frames_shape"], np.uint8), id="wrong")]
        return rec.rank([Event("video1", watched=row.get("watched", 1.0))], candidates, top_k=row.get("top_k"))

    if "raises" in row:
        with pytest.raises(getattr(errors, row["raises"])):
            call()
    else:
        assert [f.code for f in call().failed] == [row["failed"]]
