"""The bundle that ships: intact, small, offline, and better than chance at what it was made for."""

from pathlib import Path

import numpy as np
import pytest

from linkedout_edge import Event, Recommender, Video
from linkedout_edge.bundle import open_bundle
from linkedout_edge.bundle.reader import embedded_folder, embedded_precisions
from linkedout_edge.microworld import Attributes, make_exam, render_frames

PRECISIONS = ("int8", "int4")


def test_it_is_small_and_licensed():
    folder = Path(str(embedded_folder()))
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 25e6
    assert tuple(embedded_precisions()) == PRECISIONS
    with open_bundle("int8") as bundle:
        assert bundle.manifest.config.payload_bytes <= 1024
        assert "Apache-2.0" in bundle.manifest.license
        assert "Flickr8k" in bundle.manifest.provenance
        assert "none of the 244 photos on which its quality was measured" in bundle.manifest.provenance
        for precision in PRECISIONS:
            assert bundle.manifest.precisions[precision].agreement["token_cosine"] > 0.97


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_prefers_more_of_what_was_watched(precision):
    """A user who watches dogs in forests; candidates differ in object and scene, other facets at random."""
    rng = np.random.default_rng(0)
    times = (np.arange(8) + 0.5) / 8

    def clip(name, thing, scene):
        motion = ("still", "circle", "zigzag")[rng.integers(3)]
        palette = ("red", "green", "blue", "purple")[rng.integers(4)]
        attributes = Attributes(scene, thing, motion, palette)
        return Video(frames=render_frames(attributes, int(rng.integers(1000)), times, 128), id=name)

    with Recommender.load(precision) as rec:
        history = [clip(f"seen{i}", "dog", "forest") for i in range(6)]
        alike = [clip(f"alike{i}", "dog", "forest") for i in range(4)]
        others = [
            clip(f"other{i}", *pair)
            for i, pair in enumerate([("car", "street"), ("cup", "kitchen"), ("fish", "sea")] * 4)
        ]
        ranking = rec.rank([Event(v, watched=0.9) for v in history], others + alike)
        assert {r.id for r in ranking[:4]} == {v.id for v in alike}
        disliked = rec.rank([Event(v, liked=False, watched=0.0) for v in history], others + alike)
        assert {r.id for r in disliked[:4]}.isdisjoint({v.id for v in alike})
        best = ranking[0]
        assert best.explain().matrix.sum() == pytest.approx(best.score, abs=1e-3)


def test_it_passes_the_exam_and_beats_the_baselines():
    pytest.importorskip("torchmetrics", reason="the workstation half is not installed")
    from linkedout_quant.evaluation.exam import pool_videos, take_exam

    exam = make_exam(users_per_length=40, lengths=(8,), pool_size=300)
    with Recommender.load("int8") as rec:
        (row,) = take_exam(rec, exam, pool_videos(exam, rec.info().frame_size, rec.info().frames)).values()
    assert row["product"]["normalised"] >= 0.4
    for name, other in row.items():
        if name not in ("product", "ceiling"):
            assert row["product"]["ndcg@10"] > other["ndcg@10"], name
