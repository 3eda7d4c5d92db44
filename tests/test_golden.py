"""The golden vectors, against both inference libraries: what a binding in another language has to do as well."""

import itertools
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from linkedout_edge import Event, Recommender, Video, errors
from linkedout_edge.bundle import open_bundle
from linkedout_edge.scoring import event_features
from linkedout_edge.text import Tokenizer

FOLDER = Path(__file__).parents[1] / "bindings" / "conformance"
GOLDEN = json.loads((FOLDER / "golden.json").read_text())
TOLERANCE = GOLDEN["tolerance"]["score"]


def frames_of(row):
    strip = cv2.cvtColor(cv2.imread(str(FOLDER / row["frames"])), cv2.COLOR_BGR2RGB)
    return strip.reshape(row["frame_count"], -1, strip.shape[1], 3)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def rec(request):
    pytest.importorskip(request.param)
    bundle = GOLDEN["bundle"]
    with Recommender.load(bundle["precision"], backend=request.param) as rec:
        assert rec.info().token_space == bundle["token_space"], "the bundle changed: run `make golden`"
        rec.encode([Video(frames=frames_of(v), id=v["id"], title=v["title"] or None) for v in GOLDEN["videos"]])
        yield rec


def test_tokens(rec):
    for row in GOLDEN["videos"]:
        tokens, scales, _ = rec.store.gather(rec.store.rows([row["id"]]))
        want, want_scales = np.array(row["tokens"]), np.array(row["scales"])
        difference = np.abs(tokens[0] * scales[0][..., None] - want * want_scales[..., None]) / want_scales[..., None]
        assert difference.max() <= GOLDEN["tolerance"]["token_steps"], row["id"]


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
        matrix = np.array(case["explanations"][r.id]).reshape(len(events), -1)
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
