"""Users of three tastes: who they are, how they are judged, and what the command says of photos and micro-videos."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torchmetrics", reason="the workstation half is not installed")

from linkedout_quant.evaluation.imagenet_kinds import IMAGENET_KINDS, kind_of_class
from linkedout_quant.evaluation.metrics import bootstrap_interval, grouped_interval
from linkedout_quant.evaluation.photos import SIDE, find_photos, pan_and_zoom
from linkedout_quant.evaluation.tastes import (
    Kinds,
    SessionUser,
    TasteUser,
    clip_kinds,
    mixed_taste,
    one_taste,
    sessions,
)
from linkedout_quant.evaluation.yardstick import by_api, by_chance, by_cosine, judge

from linkedout_edge import Recommender, microworld
from linkedout_edge.cli.main import cli
from linkedout_edge.errors import ArgumentError

LABELS = ["red"] * 30 + ["green"] * 25 + ["blue"] * 60 + ["grey"] * 7


@pytest.fixture
def kinds() -> Kinds:
    return Kinds.of(LABELS)


def labels_of(items: np.ndarray) -> list[str]:
    return [LABELS[i] for i in items]


# Who they are.


def test_users_of_one_taste_watched_five_of_a_kind_and_could_find_eight_more(kinds):
    users = list(one_taste(kinds, 6, seed=1))
    assert [u.kind for u in users] == ["blue", "green", "red"] * 2
    for user in users:
        assert labels_of(user.history) == [user.kind] * 5
        assert [LABELS[i] == user.kind for i in user.candidates] == (user.wanted == 1).tolist()
        assert (user.wanted == 1).sum() == 8
        assert len(set(user.candidates) | set(user.history)) == 5 + len(user.candidates)
        assert not (user.wanted[:8] == 1).all()


def test_a_hundred_are_candidates_where_there_are_so_many():
    many = Kinds.of(["a"] * 150 + ["b"] * 150)
    assert {len(u.candidates) for u in one_taste(many, 4, 1)} == {100}
    many = Kinds.of(["a"] * 150 + ["b"] * 150 + ["c"] * 150)
    assert {len(u.candidates) for u in mixed_taste(many, 4, 1)} == {100}


def test_users_of_two_tastes_watched_them_in_turns_and_nothing_is_of_both():
    """Every sixth clip is round and blue at once: it can be neither a sign of one taste nor foreign to both."""
    rng = np.random.default_rng(0)
    member = np.zeros((2, 120), bool)
    member[0, ::2] = member[1, ::3] = True
    for user in mixed_taste(Kinds(("round", "blue"), member), 5, seed=int(rng.integers(99))):
        assert user.kind == "blue + round"
        of = member[:, user.history]
        assert (of.sum(0) == 1).all()
        assert of[0].tolist() in ([True, False] * 3, [False, True] * 3)
        first = 0 if of[0, 0] else 1
        marks = member[:, user.candidates]
        assert (marks.sum(0) == (user.wanted > 0)).all()
        assert (marks[first] == (user.wanted == 1)).all()
        assert (user.wanted == 1).sum() == (user.wanted == 2).sum() == 5


def test_sessions_offer_everything(kinds):
    users = list(sessions(kinds, 4, seed=3))
    assert [u.kind for u in users] == ["blue", "green", "red", "blue"]
    for user in users:
        assert sorted(user.offered) == list(range(len(LABELS)))
        assert [label == user.kind for label in LABELS] == user.likes.tolist()
    assert not np.array_equal(users[0].offered, users[3].offered)


@pytest.mark.parametrize("draw", [one_taste, mixed_taste, sessions])
def test_a_seed_gives_the_same_users(draw, kinds):
    def drawn(seed):
        return [(u.kind, getattr(u, "candidates", None), getattr(u, "offered", None)) for u in draw(kinds, 8, seed)]

    assert repr(drawn(1)) == repr(drawn(1))
    assert repr(drawn(1)) != repr(drawn(2))


@pytest.mark.parametrize("draw", [one_taste, mixed_taste, sessions])
def test_one_kind_alone_is_no_question(draw):
    with pytest.raises(ArgumentError, match=r"the largest of 1 kinds here: dog \(50\)"):
        list(draw(Kinds.of(["dog"] * 50), 3, 1))


@pytest.mark.parametrize(("draw", "needed"), [(one_taste, 13), (mixed_taste, 8), (sessions, 20)])
def test_a_kind_needs_so_many(draw, needed):
    assert len(list(draw(Kinds.of(["dog"] * needed + ["cat"] * needed), 3, 1))) == 3
    with pytest.raises(ArgumentError, match=f"of at least {needed}"):
        list(draw(Kinds.of(["dog"] * (needed - 1) + ["cat"] * (needed - 1)), 3, 1))


def test_a_micro_video_is_of_an_object_and_of_a_place():
    exam = microworld.make_exam(users_per_length=1, n_candidates=12, pool_size=60)
    attributes = [a for a, _ in exam.pool]
    kinds = clip_kinds(attributes)
    assert (kinds.member.sum(0) == 2).all()
    shown = [{kinds.names[k] for k in np.flatnonzero(column)} for column in kinds.member.T]
    assert shown == [{a.object, a.scene} for a in attributes]


# How they are judged.


def test_both_at_ten_is_the_smaller_share():
    wanted = np.repeat([1, 2, 0], [5, 5, 10])
    user = TasteUser("a + b", np.array([90, 91]), np.arange(20), wanted)

    def both(*best: int) -> float:
        order = np.array([*best, *(i for i in range(20) if i not in best)])
        return judge(user, lambda history, candidates, count: order[:count])["both@10"]

    assert both(*range(10)) == 1.0
    assert both(0, 1, 2, 3, 4, *range(10, 15)) == 0.0
    assert both(0, 1, 2, 5, *range(10, 16)) == pytest.approx(0.2)


def test_an_order_that_is_right_is_worth_one():
    user = TasteUser("a", np.array([30]), np.arange(20), np.repeat([0, 1], [12, 8]))
    right = judge(user, lambda history, candidates, count: candidates[::-1])
    assert right == {"ndcg@10": pytest.approx(1), "auc": pytest.approx(1)}
    wrong = judge(user, lambda history, candidates, count: candidates)
    assert wrong == {"ndcg@10": 0, "auc": 0}


def test_in_a_session_what_was_shown_is_watched_or_skipped():
    """A ranker that knows the taste, but for its first pick."""
    likes = np.arange(60) % 2 == 0
    histories = []

    def ranker(history, candidates, count):
        assert not {i for i, _ in history} & set(candidates.tolist())
        histories.append(list(history))
        best = candidates[np.argsort(~likes[candidates] if history else likes[candidates], kind="stable")]
        return best[:count]

    assert judge(SessionUser("even", likes, np.arange(60)), ranker) == {"liked": 19 / 20}
    assert histories[0] == []
    assert histories[-1][:2] == [(1, 0.1), (0, 1.0)]
    assert len(histories) == 20


def test_cosines_follow_what_was_watched_and_flee_what_was_skipped():
    rank = by_cosine(np.array([[1.0, 0], [0, 1], [0.8, 0.6], [0.6, 0.8], [-1, 0]]))
    candidates = np.array([4, 3, 2])
    assert rank([(0, 1.0)], candidates, 3).tolist() == [2, 3, 4]
    assert rank([(0, 0.1)], candidates, 2).tolist() == [4, 3]
    assert rank([(0, 0.1), (1, 1.0)], candidates, 1).tolist() == [3]
    assert rank([], candidates, 3).tolist() == [4, 3, 2]


def test_chance_knows_nothing_and_repeats():
    candidates = np.arange(50)
    first, again = (by_chance(1)([], candidates, 50) for _ in range(2))
    assert first.tolist() == again.tolist() != candidates.tolist()
    assert sorted(first) == candidates.tolist()


def test_the_api_is_judged_by_its_order():
    """A ranking may put a video of lower score first, for diversity."""
    seen = []

    def rank(history, candidates, *, top_k):
        seen.append(([(e.id, e.watched) for e in history], candidates, top_k))
        return [SimpleNamespace(id="b", score=0.1), SimpleNamespace(id="c", score=0.9)]

    order = by_api(SimpleNamespace(rank=rank), ["a", "b", "c"])([(0, 0.1)], np.array([2, 1]), 2)
    assert order.tolist() == [1, 2]
    assert seen == [([("a", 0.1)], ["c", "b"], 2)]


def test_intervals_over_kinds_are_wider_than_over_users():
    rng = np.random.default_rng(0)
    groups = [rng.normal(center, 0.1, 30) for center in np.linspace(0.2, 0.8, 7)]
    low, high = grouped_interval(groups)
    assert (low, high) == pytest.approx((0.5 - 0.15, 0.5 + 0.15), abs=0.03)  # 1.96 · 0.2 / √7
    over_users = bootstrap_interval(np.concatenate(groups).tolist())
    assert over_users == pytest.approx((0.5 - 0.03, 0.5 + 0.03), abs=0.03)
    single = grouped_interval(groups[:1])
    assert single == pytest.approx(bootstrap_interval(groups[0].tolist()), abs=0.01)


# Photos.


def test_imagenet_kinds_share_no_class():
    numbers = [n for kind in IMAGENET_KINDS.values() for n in kind]
    assert len(numbers) == len(set(numbers))
    assert [kind_of_class(n) for n in (1, 207, 817, 980, 999)] == ["sea animal", "dog", "vehicle", "landscape", None]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy photos of three colours, in sub-folders; one file is none. And three indices of them."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    rows = []
    for channel, (kind, number) in enumerate({"blue": 817, "green": 207, "red": 1}.items()):
        (folder / kind).mkdir()
        for n in range(21):
            image = rng.integers(0, 90, (40, 56, 3), dtype=np.uint8)
            image[..., channel] += 140
            cv2.imwrite(str(folder / kind / f"{kind}{n}.png"), image)
            rows.append({"image": f"{kind}{n}.png", "imagenet_index": number, "label": f"a {kind} one"})
    (folder / "red" / "broken.jpg").write_bytes(b"no photo")
    (folder / "red" / "notes.txt").write_text("no photo either")
    rows.append({"image": "not_there.png", "imagenet_index": 999, "label": ""})

    def write(name: str, *columns: str) -> None:
        with (folder / name).open("w", newline="") as f:
            writer = csv.DictWriter(f, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    write("objects.csv", "image", "imagenet_index", "label")
    write("labels.csv", "image", "label")
    write("files.csv", "image")
    return folder


def counts(kinds: Kinds) -> dict[str, int]:
    return dict(zip(kinds.names, kinds.member.sum(1).tolist(), strict=True))


def test_photos_are_sorted_by_sub_folders_labels_or_classes(photos):
    assert counts(find_photos(photos).kinds) == {"blue": 21, "green": 21, "red": 22}
    by_label = find_photos(photos, "labels.csv")  # the row without a label names no file
    assert counts(by_label.kinds) == {"a blue one": 21, "a green one": 21, "a red one": 21}
    assert by_label.paths[0] == photos / "blue" / "blue0.png"
    by_class = find_photos(photos, "objects.csv").kinds
    assert list(counts(by_class).items()) == [("dog", 21), ("sea animal", 21), ("vehicle", 21)]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("gone.csv", "there is no index"),
        ("files.csv", "needs a column imagenet_index, kind or label, and has image"),
    ],
)
def test_an_index_that_says_nothing_is_refused(photos, index, message):
    with pytest.raises(ArgumentError, match=message):
        find_photos(photos, index)


def test_a_class_that_is_no_number_is_named(tmp_path):
    (tmp_path / "objects.csv").write_text("image,imagenet_index\na.png,dog\n")
    with pytest.raises(ArgumentError, match="must be a number from 0 to 999, not 'dog'"):
        find_photos(tmp_path, "objects.csv")


def test_the_index_of_the_docs_numbers_classes_by_name(tmp_path, monkeypatch):
    docs = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", docs, re.DOTALL)
    assert example is not None
    (tmp_path / "FOLDER").mkdir()
    names = [f"n{wordnet:08}_thing.JPEG" for wordnet in (1443537, 1440764, 1491361, 1484850)]
    for name in names:
        (tmp_path / "FOLDER" / name).touch()
    monkeypatch.chdir(tmp_path)
    exec(example[1], {})
    found = find_photos(tmp_path / "FOLDER", "objects.csv")
    assert [p.name for p in found.paths] == [names[0], names[2]]  # goldfish is 1, tiger shark 3
    assert found.kinds.names == ("sea animal",)


def test_a_folder_without_sub_folders_is_refused(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ArgumentError, match="no sub-folders with photos"):
        find_photos(tmp_path)


def test_the_camera_goes_from_one_square_to_the_other():
    across = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    move = np.array([[0.99, 0.0, 0.0], [0.0, 0.99, 0.5]])
    clip = pan_and_zoom(across, move, np.array([0.0, 0.5, 1.0]))
    assert clip.shape == (3, SIDE, SIDE, 3)
    assert clip[0].mean() == pytest.approx(49, abs=2)  # all of the height, at the left
    assert clip[2].mean() == pytest.approx(161, abs=2)  # three quarters of it, at the right
    assert clip[0].mean() < clip[1].mean() < clip[2].mean()
    assert pan_and_zoom(across[:1, :1], move, np.array([0.5])).shape == (1, SIDE, SIDE, 3)


# The command.


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *map(str, args)])


def test_photos_are_ranked_by_the_product_and_by_what_is_simpler(photos, tiny_bundle):
    done = run("--bundle", tiny_bundle, "--precision", "fp32", "--photos", photos, "--users", 6, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["kinds"] == {"blue": 21, "green": 21, "red": 21}
    (skipped,) = report["skipped"]
    assert "broken.jpg is not a readable image" in skipped
    one, mixed, session = report["tastes"]
    assert [r["taste"] for r in report["tastes"]] == ["one", "mixed", "session"]
    for metrics in (one, mixed, session):
        assert list(metrics["results"]) == ["product", "random", "histogram", "cosine"]
        for row in metrics["results"].values():
            for m in row.values():
                assert m["interval"][0] <= m["mean"] <= m["interval"][1]
    # Colour is all that there is to know.
    assert one["results"]["histogram"]["ndcg@10"]["mean"] == pytest.approx(1)
    assert one["results"]["histogram"]["auc"]["by_kind"] == pytest.approx({"blue": 1, "green": 1, "red": 1})
    assert mixed["results"]["histogram"]["both@10"]["mean"] > 0.6 > mixed["results"]["random"]["both@10"]["mean"]
    assert session["results"]["histogram"]["liked"]["mean"] > 0.8 > session["results"]["random"]["liked"]["mean"]
    product, cosine = (one["results"][name]["ndcg@10"] for name in ("product", "cosine"))
    assert product["difference"] == pytest.approx(product["mean"] - cosine["mean"])
    assert product["difference_interval"][0] <= product["difference"] <= product["difference_interval"][1]
    assert cosine["difference"] is None


def test_a_precision_alone_is_one_of_the_built_in_bundle(photos):
    done = run("--precision", "int3", "--photos", photos)
    assert done.exit_code == 2
    assert "int8" in done.stderr
    assert "contradicts" not in done.stderr


def test_tables_name_what_was_asked_for(photos, tiny_bundle):
    args = ("--bundle", tiny_bundle, "--photos", photos, "--index", "objects.csv", "--users", 3)
    done = run(*args, "--taste", "session", "mixed", "--baseline", "random")
    assert done.exit_code == 0, done.output
    assert done.stdout.index("session: 20 shown") < done.stdout.index("mixed taste: 3 watched")
    assert "liked by kind: " in done.stdout
    assert "both@10" in done.stdout
    assert "histogram" not in done.stdout
    assert "63 clips: dog 21, sea animal 21, vehicle 21" in done.stderr


def test_micro_videos_are_asked_the_same(tiny_bundle, monkeypatch):
    small = microworld.make_exam(users_per_length=1, n_candidates=12, pool_size=140)
    monkeypatch.setattr(microworld, "make_exam", lambda **kwargs: small)
    done = run("--bundle", tiny_bundle, "--taste", "one", "mixed", "session", "--users", 4, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report["kinds"]) >= {"dog", "sea"}
    assert [list(t["results"]["product"]) for t in report["tastes"]] == [
        ["ndcg@10", "auc"],
        ["ndcg@10", "both@10"],
        ["liked"],
    ]


def test_without_tastes_and_photos_it_is_the_exam(tiny_bundle, monkeypatch):
    small = microworld.make_exam(users_per_length=2, lengths=(2, 8), n_candidates=25, pool_size=60)
    monkeypatch.setattr(microworld, "make_exam", lambda **kwargs: small)
    args = ("--bundle", tiny_bundle, "--users", 2)
    done = run(*args)
    assert done.exit_code == 0, done.output
    assert done.stdout.index("2 watched videos, 2 users") < done.stdout.index("8 watched videos, 2 users")
    report = json.loads(run(*args, "--json").stdout)
    assert list(report) == ["2", "8"]
    assert report["8"]["ceiling"]["normalised"] == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--index", "objects.csv"], "--index says what --photos show"),
        (["--baseline", "random"], "the exam has baselines of its own"),
        (["--taste", "one", "--baseline", "teacher"], "--baseline teacher needs --data FOLDER"),
        (["--taste", "some"], "'some' is not one of 'one', 'mixed', 'session'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(args, message, tiny_bundle):
    done = run("--bundle", tiny_bundle, *args)
    assert done.exit_code == 2
    assert message in done.stderr


def test_too_few_photos_are_said_before_anything_is_encoded(tmp_path, tiny_bundle, monkeypatch):
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for n in range(13):
            (tmp_path / kind / f"{n}.jpg").touch()
    monkeypatch.setattr(Recommender, "load", lambda *args, **kwargs: pytest.fail("not needed yet"))
    done = run("--bundle", tiny_bundle, "--photos", tmp_path)
    assert done.exit_code == 2
    assert "taste session needs a kind of at least 20" in done.stderr
