from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from linkedout_edge.errors import ArgumentError
from linkedout_edge.microworld import (
    FACETS,
    KINDS,
    LATENT_SIZE,
    Attributes,
    UserPool,
    caption,
    ceiling_scores,
    draw_taste,
    held_out,
    make_exam,
    normalized,
    one_hot,
    random_attributes,
    render_frames,
    simulate_user,
    write_clip,
)

PLAIN = Attributes("sea", "dog", "circle", "blue")
TIMES = (np.arange(8) + 0.5) / 8


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def variants() -> Iterator[Attributes]:
    """PLAIN with one facet changed, for every other value of every facet."""
    for facet, values in FACETS.items():
        yield from (replace(PLAIN, **{facet: v}) for v in values if v != getattr(PLAIN, facet))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


# --- attributes and captions ---


def test_one_hot_has_one_value_per_facet_and_tells_all_apart() -> None:
    vectors = np.stack([one_hot(a) for a in (PLAIN, *variants())])
    assert vectors.shape == (LATENT_SIZE - len(FACETS) + 1, LATENT_SIZE)
    assert vectors.dtype == np.float32
    assert (vectors.sum(1) == len(FACETS)).all()
    assert len(np.unique(vectors, axis=0)) == len(vectors)


def test_an_unknown_value_is_named_with_its_closest_match() -> None:
    with pytest.raises(ArgumentError, match=r"unknown scene 'kitchn'.*Did you mean 'kitchen'"):
        Attributes("kitchn", "dog", "circle", "blue")


def test_a_fifth_of_the_combinations_is_held_out_whatever_the_other_facets() -> None:
    combinations = [
        Attributes(s, o, m, p)
        for s in FACETS["scene"]
        for o in FACETS["object"]
        for m in FACETS["motion"]
        for p in FACETS["palette"]
    ]
    out = np.array([held_out(a) for a in combinations])
    assert 0.18 < out.mean() < 0.22
    # The same on every machine and in every version: exams of different days must compare.
    assert int(out.sum()) == 770
    for a in combinations[::97]:
        assert held_out(replace(a, camera="shake", cuts="many", text="GO")) == held_out(a)


def test_random_attributes_keep_to_their_side(rng: np.random.Generator) -> None:
    assert not any(held_out(random_attributes(rng)) for _ in range(300))
    assert all(held_out(random_attributes(rng, split="held_out")) for _ in range(100))
    assert len({held_out(random_attributes(rng, split="any")) for _ in range(100)}) == 2
    with pytest.raises(ArgumentError, match="unknown split 'test'"):
        random_attributes(rng, split="test")  # type: ignore[arg-type]


def test_every_value_is_drawn(rng: np.random.Generator) -> None:
    assert (np.mean([one_hot(random_attributes(rng)) for _ in range(600)], 0) > 0.04).all()


def test_captions_name_object_and_color_and_vary(rng: np.random.Generator) -> None:
    texts = [caption(PLAIN, rng) for _ in range(40)]
    assert all("a blue dog" in t for t in texts)
    assert len(set(texts)) > 10
    assert "an orange dog" in caption(replace(PLAIN, palette="orange"), rng)
    one, other = (caption(PLAIN, np.random.default_rng(3)) for _ in range(2))
    assert one == other


# --- pictures ---


def test_a_frame_depends_on_nothing_but_attributes_seed_and_time(rng: np.random.Generator) -> None:
    for seed in range(16):
        a = random_attributes(rng, split="any")
        frames = render_frames(a, seed, TIMES, 64)
        assert frames.shape == (8, 64, 64, 3)
        assert frames.dtype == np.uint8
        np.testing.assert_array_equal(frames[[6, 1]], render_frames(a, seed, TIMES[[6, 1]], 64))


def test_no_times_no_frames() -> None:
    assert render_frames(PLAIN, 0, np.zeros(0), 64).shape == (0, 64, 64, 3)


def test_seeds_vary_the_clip() -> None:
    assert difference(render_frames(PLAIN, 1, TIMES, 64), render_frames(PLAIN, 2, TIMES, 64)) > 8


@pytest.mark.parametrize(
    "attributes", list(variants()), ids=lambda a: "-".join(set(vars(a).values()) - set(vars(PLAIN).values()))
)
def test_every_value_of_every_facet_is_visible(attributes: Attributes) -> None:
    # Noise and brightness come from the seed, so only the facet differs between the two.
    changed = [
        difference(render_frames(attributes, s, TIMES, 64), render_frames(PLAIN, s, TIMES, 64)) for s in range(3)
    ]
    assert min(changed) > 2


def test_objects_and_scenes_differ_without_color() -> None:
    for facet in ("object", "scene"):
        gray = [
            render_frames(replace(PLAIN, palette="grey", motion="still", **{facet: v}), 4, [0.5], 64)[0].mean(-1)
            for v in FACETS[facet]
        ]
        gaps = [difference(a, b) for i, a in enumerate(gray) for b in gray[:i]]
        assert min(gaps) > 2


def test_a_still_clip_stands_still_and_a_cut_changes_the_picture() -> None:
    still = replace(PLAIN, motion="still")
    whole = render_frames(still, 5, TIMES, 64)
    cut = render_frames(replace(still, cuts="one"), 5, TIMES, 64)
    noise = difference(whole[0], whole[7])
    assert difference(cut[0], cut[7]) > noise + 8
    assert difference(cut[0], cut[3]) < noise + 1


def test_sizes_show_the_same() -> None:
    for seed, a in enumerate(random_attributes(np.random.default_rng(3)) for _ in range(8)):
        large = render_frames(a, seed, TIMES[:2], 256)
        small = render_frames(a, seed, TIMES[:2], 128)
        shrunk = np.stack([cv2.resize(f, (128, 128), interpolation=cv2.INTER_AREA) for f in large])
        assert np.median(np.abs(shrunk.astype(int) - small)) <= 3  # edges differ, surfaces do not
        assert difference(shrunk, small) < 14


@pytest.mark.parametrize(
    ("seed", "times", "size", "message"),
    [(0, [1.2], 64, "times"), (0, [float("nan")], 64, "times"), (-1, [0.5], 64, "seed"), (0, [0.5], 8, "size")],
)
def test_bad_arguments_of_render_frames(seed: int, times: list[float], size: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        render_frames(PLAIN, seed, np.array(times), size)


# --- files ---


@pytest.mark.parametrize("with_av", [True, False])
def test_a_written_clip_shows_what_is_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_av: bool) -> None:
    if with_av:
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "clip.mp4"
    write_clip(path, PLAIN, 7, size=128, fps=10, seconds=1.5)
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1][..., ::-1])
    capture.release()
    assert len(frames) == 15
    expected = render_frames(PLAIN, 7, (np.arange(15) + 0.5) / 15, 128)
    assert difference(np.stack(frames), expected) < 10


def test_key_frames_come_every_half_second(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    write_clip(path, PLAIN, 7, size=64, fps=12, seconds=2.0)
    with av.open(str(path)) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and p.is_keyframe]
    assert keys[0] == 0
    assert 0 < max(np.diff([*keys, 2.0])) <= 0.5 + 1e-6


def test_bad_arguments_of_write_clip(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="even"):
        write_clip(tmp_path / "clip.mp4", PLAIN, 7, size=65)


# --- users ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_taste_is_about_its_facets_and_drifts_slowly(rng: np.random.Generator, kind: str) -> None:
    taste = draw_taste(rng, kind)
    latents = np.stack([one_hot(random_attributes(rng, split="any")) for _ in range(3000)])
    today, long_ago = taste.utility(latents), taste.utility(latents, 32)
    assert abs(today.mean()) < 0.1
    assert abs(today.std() - 1) < 0.1
    assert 0.5 < np.corrcoef(today, long_ago)[0, 1] < 1
    weights, start = {}, 0
    for facet, values in FACETS.items():
        weights[facet] = taste.today[start : start + len(values)].var()
        start += len(values)
    top = max(weights, key=lambda f: weights[f])
    assert top in KINDS[kind]


def test_users_watch_more_of_what_they_like(rng: np.random.Generator) -> None:
    pool = UserPool([random_attributes(rng) for _ in range(400)])
    gaps = []
    for _ in range(60):
        user = pool.draw(rng, n_events=16)
        shown = pool.latents[user.history]
        query = pool.latents[user.candidates[user.relevant]].mean(0)
        liked = shown @ query
        if user.watched.std() > 0.05:
            gaps.append(np.corrcoef(liked, user.watched)[0, 1])
    assert np.mean(gaps) > 0.4


def test_simulated_events(rng: np.random.Generator) -> None:
    events = list(simulate_user(rng, "looks", 12))
    assert len(events) == 12
    assert all(0 <= e.watched <= 1 and not held_out(e.attributes) for e in events)
    assert np.mean([e.watched for e in events]) > 0.4  # mostly chosen
    ages = [e.age_hours for e in events]
    assert ages == sorted(ages, reverse=True)
    assert ages[-1] > 0
    assert all(held_out(e.attributes) for e in simulate_user(rng, n_events=3, split="held_out"))


def test_bad_arguments_of_users(rng: np.random.Generator) -> None:
    pool = UserPool([random_attributes(rng) for _ in range(20)])
    with pytest.raises(ArgumentError, match="pool of 20 clips"):
        pool.draw(rng, n_events=4, n_candidates=18)
    with pytest.raises(ArgumentError, match=r"unknown kind of user 'look'.*Did you mean 'looks'"):
        draw_taste(rng, "look")
    with pytest.raises(ArgumentError, match="at least 1"):
        list(simulate_user(rng, n_events=0))


def test_a_small_pool_is_enough_for_a_demo(rng: np.random.Generator) -> None:
    user = UserPool([random_attributes(rng) for _ in range(30)]).draw(rng, n_events=6, n_candidates=24, kind="objects")
    assert sorted([*user.history, *user.candidates]) == list(range(30))
    assert user.relevant.sum() == 2


# --- the exam ---


def test_the_exam_is_fixed_fair_and_of_unseen_combinations() -> None:
    exam = make_exam(users_per_length=20)
    assert len(exam.pool) == 600
    assert all(held_out(a) for a, _ in exam.pool)
    assert [len(u.history) for u in exam.users] == [2] * 20 + [8] * 20 + [32] * 20
    for user in exam.users:
        assert user.relevant.sum() == 10
        assert len(user.candidates) == len(set(user.candidates)) == 100
        assert not set(user.candidates) & set(user.history)
        assert len(set(user.history)) == len(user.history)
        assert user.watched.shape == user.ages_hours.shape == user.history.shape
    again = make_exam(users_per_length=5)
    np.testing.assert_array_equal(again.users[4].candidates, exam.users[4].candidates)  # fewer users are the same users
    np.testing.assert_array_equal(again.users[7].watched, exam.users[22].watched)
    assert make_exam(1, users_per_length=1).pool != exam.pool


def test_the_ceiling_is_far_above_chance_and_rises_with_the_history() -> None:
    exam = make_exam(users_per_length=40)
    hits: dict[int, list[float]] = {}
    for user in exam.users:
        best = np.argsort(-ceiling_scores(exam, user), kind="stable")[:10]
        hits.setdefault(len(user.history), []).append(user.relevant[best].mean())
    two, eight, many = (float(np.mean(hits[n])) for n in (2, 8, 32))
    assert 0.25 < two < eight < many
    assert eight > 0.5


def test_normalized() -> None:
    assert normalized(0.4, 0.1, 0.7) == pytest.approx(0.5)
