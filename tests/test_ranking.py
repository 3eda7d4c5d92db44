from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from linkedout_edge import Event, Failed, Ranked, Ranking, Video
from linkedout_edge.errors import ArgumentError
from linkedout_edge.rank.taste import Space, Taste, gram
from linkedout_edge.results import Evidence, best_first


@given(
    arrays(np.float32, st.integers(0, 60), elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0])), st.integers(1, 70)
)
def test_best_first_is_numpys_stable_order(scores: np.ndarray, top_k: int) -> None:
    whole = np.argsort(-scores, kind="stable")
    assert best_first(scores).tolist() == whole.tolist()
    assert best_first(scores, top_k).tolist() == whole[:top_k].tolist()


def make(scores: list[float], evidence: Evidence | None = None) -> Ranking:
    s = np.array(scores, np.float32)
    layers = np.stack([s / 2, s / 2], 1)
    ids = [f"v{i}" for i in range(len(scores))]
    order = best_first(s)
    failed = [Failed("bad", "candidate", "unreadable", "no video")]
    return Ranking(ids, s, layers[order], order, failed, evidence=evidence)


def test_a_ranking_is_a_sequence_of_ranked() -> None:
    ranking = make([0.0, 2.0, 1.0, 2.0])
    assert [(r.rank, r.id) for r in ranking] == [(1, "v1"), (2, "v3"), (3, "v2"), (4, "v0")]
    assert ranking[0] == Ranked(1, "v1", 2.0, (1.0, 1.0), "content")
    assert ranking[-1].id == "v0"
    assert ranking.ids == ["v1", "v3", "v2", "v0"]
    assert ranking.scores.tolist() == [2, 2, 1, 0]
    assert len(ranking) == 4
    assert ranking[0] in ranking
    with pytest.raises(IndexError):
        ranking[4]
    with pytest.raises(AttributeError):
        ranking[0].rank = 3  # type: ignore[misc]


def test_a_slice_keeps_ranks_and_failures() -> None:
    part = make([0.0, 2.0, 1.0, 2.0])[1:][1:]
    assert [(r.rank, r.id) for r in part] == [(3, "v2"), (4, "v0")]
    assert part.ids == ["v2", "v0"]
    assert part.failed[0].id == "bad"
    assert [r.rank for r in make([0.0, 2.0, 1.0])[::-1]] == [3, 2, 1]


def test_to_dict_is_json() -> None:
    out = json.loads(json.dumps(make([1.0, 2.0]).to_dict()))
    assert out["ranked"][0] == {"rank": 1, "id": "v1", "score": 2.0, "layers": [1.0, 1.0], "source": "content"}
    assert out["failed"] == [{"id": "bad", "role": "candidate", "code": "unreadable", "reason": "no video"}]
    assert set(out["timing"]) == {"decode", "encode", "user", "score", "total"}


def test_an_empty_ranking_is_fine() -> None:
    ranking = make([])
    assert list(ranking) == []
    assert ranking.ids == []
    assert ranking.scores.shape == (0,)


def evidence(
    events: list[Event], past: list[list[int]], weights: list[list[float]], candidate: list[int], mean: float = 0.0
) -> Evidence:
    """Two layers, one token of width 1: every number of an explanation can be checked by hand."""
    space = Space.made(np.full((2, 1), mean), np.ones(2))
    seen = np.array(past, np.float32).reshape(-1, 2, 1) - np.float32(mean)
    w = np.array(weights, np.float64).reshape(-1, 2)
    query = np.einsum("nl,nlf->lf", w, seen)
    products = gram(seen.transpose(1, 0, 2))
    gates, offset = np.array([0.5, 0.5]), (query * mean).sum(1)
    user = Taste(space, query, offset, gates, w, seen, products, np.eye(len(w)), np.ones(len(w)))
    return Evidence(
        events,
        user,
        ("low", "high"),
        lambda _: (np.array(candidate, np.int8).reshape(2, 1, 1), np.ones((2, 1), np.float32)),
        lambda e: e.video.name,
    )


def test_the_matrix_is_weight_times_similarity() -> None:
    events = [Event("x/a.mp4"), Event(Video("b.mp4", title="Cats"), watched=0.1)]
    proof = evidence(events, [[2, 4], [1, 1]], [[0.5, 0.25], [-0.5, 0.0]], [3, 1])
    explanation = make([4.0], proof)[0].explain()
    assert explanation.matrix.tolist() == [[3.0, 1.0], [-1.5, 0.0]]
    assert explanation.matrix.dtype == np.float32
    assert explanation.history == ("x/a.mp4", "b.mp4")
    assert explanation.layer_names == ("low", "high")
    assert explanation.sentence == "Recommended because you watched “a.mp4”."
    json.dumps(explanation.to_dict())


def test_the_matrix_compares_with_the_average_video() -> None:
    proof = evidence([Event("a")], [[3, 3]], [[1.0, 1.0]], [5, 1], mean=1.0)
    assert proof.explain(0, "v", 8.0).matrix.tolist() == [[8.0, 0.0]]  # (3 - 1) · (5 - 1), (3 - 1) · (1 - 1)


@pytest.mark.parametrize(
    ("event", "weight", "sentence"),
    [
        (Event("a", liked=True), 1.0, "Recommended because you liked “a”."),
        (Event("a", watched=0.1), 1.0, "Recommended because it is unlike “a”, which you skipped."),
        (Event("a", watched=0.29), -1.0, "Ranked low because it resembles “a”, which you skipped."),
        (Event("a", watched=0.3), -1.0, "Ranked low because it is unlike “a”, which you watched."),
        (Event("a", watched=0.1), -1.0, "Ranked low because it resembles “a”, which you skipped."),
        (Event("a", liked=False), -1.0, "Ranked low because it resembles “a”, which you disliked."),
        (Event("a"), -1.0, "Ranked low because it is unlike “a”, which you watched."),
        (Event("a"), 0.0, "Nothing that you watched speaks for or against it, so it keeps its place in the list."),
    ],
)
def test_the_sentence_says_what_spoke_for_or_against(event: Event, weight: float, sentence: str) -> None:
    assert evidence([event], [[1, 1]], [[weight, weight]], [1, 1]).explain(0, "v", weight).sentence == sentence


def test_two_strong_causes_are_both_named_and_repeats_are_added_up() -> None:
    events = [Event("a"), Event("b"), Event("a"), Event("c")]
    proof = evidence(events, [[1, 1]] * 4, [[0.5, 0.5], [0.9, 0.9], [0.5, 0.5], [0.1, 0.1]], [1, 1])
    assert proof.explain(0, "v", 2.0).sentence == "Recommended because you watched “a” and “b”."


def test_a_ranked_of_another_process_has_no_explanation() -> None:
    proof = evidence([Event("a")], [[1, 1]], [[1.0, 1.0]], [1, 1])
    copy = pickle.loads(pickle.dumps(make([1.0], proof)[0]))
    assert copy == make([1.0])[0]
    with pytest.raises(ArgumentError, match="explain ranking"):
        copy.explain()
