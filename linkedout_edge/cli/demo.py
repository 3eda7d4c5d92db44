"""`linkedout-edge demo`: the whole path on 30 rendered clips or a folder of videos, as a table and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from linkedout_edge.cli.options import SeveralValues, expand_videos, model_options, parse_watched
from linkedout_edge.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np

    from linkedout_edge import Event, Recommender
    from linkedout_edge.cli.rank import Outcome
    from linkedout_edge.cli.report import Picture, Report
    from linkedout_edge.microworld import Attributes

LIKED, SKIPPED = 4, 2
"""Events of the simulated user: clips that fit the taste, and clips that do not."""
FITTING, OTHERS = 8, 16
"""Candidates that fit the taste, and those that do not."""
FILM_FRAMES = 4
_TIMED = 9  # rankings that the time is the median of
_DECODED = 256  # side of the frames that thumbnails are cut from


@dataclass(frozen=True)
class Scene:
    """What is ranked, and for whom.

    Attributes:
        events: The history.
        candidates: Paths of the videos to rank.
        titles: Path → what to call the video; the model does not see it.
        taste: Who watches, in a sentence.
        fitting: Candidates that the simulated user would like; empty for real videos.
    """

    events: list[Event]
    candidates: list[str]
    titles: dict[str, str]
    taste: str
    fitting: frozenset[str] = frozenset()


@click.command(cls=SeveralValues)
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("linkedout-demo"),
    show_default=True,
    help="Folder for the page and the rendered clips.",
)
@click.option(
    "--history",
    multiple=True,
    metavar="VIDEO...",
    help="With FOLDER: watched videos, as names in it or paths; add @0.2 for the watched fraction.",
)
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Seed of the simulated user and the clips."
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def demo(
    ctx: click.Context,
    folder: Path | None,
    out: Path,
    history: tuple[str, ...],
    seed: int,
    open_page: bool,
    model: dict[str, Any],
    as_json: bool,
) -> None:
    """Rank 24 short videos by six that were watched, or the videos in FOLDER, and write a web page.

    Without FOLDER, clips are rendered, of combinations that the model was not trained on. A simulated user with a
    simple taste has watched six of them. The page is a single file, OUT/index.html, that loads nothing from elsewhere.

    Exit code: 0, or 1 if no video could be ranked.
    """
    from linkedout_edge import Recommender
    from linkedout_edge.cli.output import console, plain, print_json
    from linkedout_edge.cli.rank import prepare_and_rank, show_ranking

    if folder is None and history:
        raise ArgumentError("--history needs a FOLDER: the rendered clips have their own history")
    # The bundle first: a mistake in the call should not show after a minute of rendering.
    with Recommender.load(**model) as rec:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise ArgumentError(f"--out {out} cannot be made: {e.strerror}; name another folder") from e
        scene = real_scene(folder, history, seed) if folder else rendered_scene(out / "clips", seed)
        rec.warmup()
        outcome = prepare_and_rank(rec, scene.events, scene.candidates)
        page = out / "index.html"
        _write_page(page, build_report(scene, outcome, rec))
        if as_json:
            watched = [{"id": e.id, "title": scene.titles.get(e.id), "watched": e.watched} for e in scene.events]
            print_json({"page": str(page), "taste": scene.taste, "history": watched, **outcome.to_dict(explain=True)})
        else:
            console().print(plain(scene.taste), end="\n\n")
            show_ranking(outcome, rec, len(scene.events), explain=False, names=scene.titles)
            console().print(plain(f"\u2192 {page}", "bold"))
    if open_page:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    if not len(outcome.ranking):
        ctx.exit(1)


def rendered_scene(folder: Path, seed: int) -> Scene:
    """Render a simulated user's clips into `folder`: what was watched, and what is on offer."""
    import numpy as np

    from linkedout_edge import Event, Video
    from linkedout_edge.cli.output import progress
    from linkedout_edge.microworld import FACETS, write_clip

    rng = np.random.default_rng(seed)
    # Two facets that everyone sees at a glance; a taste for camera work would not show on thumbnails.
    facets = sorted(rng.choice(["scene", "object", "palette"], 2, replace=False).tolist())
    likes = {f: str(rng.choice(FACETS[f])) for f in facets}

    def fits(a: Attributes) -> int:
        return sum(getattr(a, f) == value for f, value in likes.items())

    watched = _draw(rng, LIKED, lambda a: fits(a) == 2) + _draw(rng, SKIPPED, lambda a: fits(a) == 0)
    fractions = [*rng.uniform(0.82, 1.0, LIKED), *rng.uniform(0.03, 0.15, SKIPPED)]
    both = FITTING // 2
    offered = _draw(rng, both, lambda a: fits(a) == 2) + _draw(rng, FITTING - both, lambda a: fits(a) == 1)
    offered += _draw(rng, OTHERS, lambda a: fits(a) == 0)

    folder.mkdir(parents=True, exist_ok=True)
    past = rng.permutation(len(watched))
    shown = [watched[i] for i in past]
    fractions = [float(fractions[i]) for i in past]
    shown += [offered[i] for i in rng.permutation(len(offered))]
    paths: list[str] = []
    titles: dict[str, str] = {}
    with progress("Rendering clips", len(shown)) as advance:
        for i, attributes in enumerate(shown):
            path = (
                folder
                / f"{i + 1:02d}-{attributes.palette}-{attributes.object}-{attributes.scene.replace(' ', '-')}.mp4"
            )
            write_clip(path, attributes, seed * 1000 + i, size=_DECODED)
            paths.append(str(path))
            titles[str(path)] = _title(attributes)
            advance(i + 1, len(shown))
    n = len(watched)
    # An id and a title, and no path: the title names the video in sentences, and the model does not get to read it.
    events = [Event(Video(id=p, title=titles[p]), f) for p, f in zip(paths[:n], fractions, strict=True)]
    fitting = frozenset(p for p, a in zip(paths[n:], shown[n:], strict=True) if fits(a))
    return Scene(events, paths[n:], titles, _taste(likes), fitting)


def _draw(rng: np.random.Generator, count: int, wanted: Callable[[Attributes], bool]) -> list[Attributes]:
    """Held-out attributes that are `wanted`; the model was trained on none of these combinations."""
    from linkedout_edge.microworld import random_attributes

    found: list[Attributes] = []
    while len(found) < count:
        attributes = random_attributes(rng, split="held_out")
        if wanted(attributes):
            found.append(attributes)
    return found


_PLACE = {
    "kitchen": "in a kitchen",
    "street": "in a street",
    "forest": "in a forest",
    "sea": "by the sea",
    "stadium": "in a stadium",
    "desert": "in the desert",
    "night city": "in a city at night",
    "room": "in a living room",
}
_MOTION = {
    "still": "",
    "left-right": "going left and right",
    "up-down": "bouncing up and down",
    "circle": "circling",
    "zigzag": "zigzagging",
    "grow-shrink": "growing and shrinking",
}


def _title(a: Attributes) -> str:
    """Short enough for a sentence that names two videos; `microworld.caption` tells all."""
    return " ".join(filter(None, (a.palette.capitalize(), a.object, _MOTION[a.motion], _PLACE[a.scene])))


def _taste(likes: dict[str, str]) -> str:
    words = {
        "palette": lambda value: f"anything {value}",
        "object": lambda value: value if value == "fish" else f"{value}s",
        "scene": lambda value: f"clips {_PLACE[value]}",
    }
    return f"A simulated user who likes {' and '.join(words[f](v) for f, v in likes.items())}, and skips the rest."


def real_scene(folder: Path, history: Sequence[str], seed: int) -> Scene:
    """The videos in `folder`, with the history that was given, else a few of them taken for watched.

    Raises:
        ArgumentError: There are no videos, or all of them were watched.
    """
    import numpy as np

    from linkedout_edge import Event, Video

    videos = expand_videos([str(folder)])
    if videos == [str(folder)]:
        raise ArgumentError(f"{folder} has no videos in it: name a folder that has, or leave it out to render some")
    if len(videos) == 1 and not history:
        raise ArgumentError(f"{folder} has only one video: name a folder with more, or what was watched with --history")
    watched: list[tuple[str, float]] = []
    for value in history:
        path, fraction = parse_watched(value)
        inside = expand_videos([str(folder / path)])  # a name in FOLDER comes before one in the working directory
        found = inside if all(Path(p).exists() for p in inside) else expand_videos([path])
        if not all(Path(p).exists() for p in found):
            raise ArgumentError(f"--history {path}: there is no such file, neither in {folder} nor here")
        watched += [(p, 1.0 if fraction is None else fraction) for p in found]
    taste = f"You watched {len(watched)} of the videos."
    if not history:
        count = max(1, min(6, len(videos) // 4))
        picks = sorted(np.random.default_rng(seed).choice(len(videos), count, replace=False).tolist())
        watched = [(videos[i], 1.0) for i in picks]
        verb = "counts" if count == 1 else "count"
        taste = f"No --history was given, so {count} of the videos, drawn by chance, {verb} as watched."
    past = {Path(p).resolve() for p, _ in watched}  # however they are spelt
    candidates = [v for v in videos if Path(v).resolve() not in past]
    if not candidates:
        raise ArgumentError(f"every video in {folder} was watched: leave some out of --history to have them ranked")
    titles = {p: Path(p).stem.replace("_", " ") for p in dict.fromkeys([*(p for p, _ in watched), *candidates])}
    return Scene([Event(Video(id=p, title=titles[p]), f) for p, f in watched], candidates, titles, taste)


def build_report(scene: Scene, outcome: Outcome, rec: Recommender) -> Report:
    """Gather what the page shows: thumbnails, explanations and facts."""
    from linkedout_edge.cli.output import printable, progress
    from linkedout_edge.cli.report import Place, Report, Watched

    ranking, info = outcome.ranking, rec.info()
    bad = {f.id for f in outcome.failed}
    events = [e for e in scene.events if e.id not in bad]
    wanted = list(dict.fromkeys([*(e.id for e in events), *ranking.ids]))
    pictures: dict[str, Picture] = {}
    with progress("Drawing the page", len(wanted)) as advance:
        for path in wanted:
            pictures[path] = _picture(path, printable(scene.titles.get(path, path)))
            advance(len(pictures), len(wanted))
    places = []
    for ranked in ranking:
        why = ranked.explain()
        by_video = why.matrix.sum(1)
        strongest = None
        if by_video.size and abs(by_video).max() > 1e-9:
            strongest = int(by_video.argmax() if ranked.score >= 0 else by_video.argmin())
        places.append(
            Place(
                ranked.rank,
                pictures[ranked.id],
                ranked.score,
                ranked.layers,
                why.sentence,
                strongest,
                why.matrix.tolist(),
            )
        )
    return Report(
        summary=scene.taste,
        layer_names=info.layer_names,
        history=[Watched(pictures[e.id], e.watched) for e in events],
        ranked=places,
        failed=[(printable(Path(f.id).name), printable(f.reason)) for f in outcome.failed],
        facts=list(_facts(scene, outcome, rec).items()),
    )


def _picture(path: str, name: str) -> Picture:
    from linkedout_edge.cli.inspect import container
    from linkedout_edge.cli.report import Picture, film_strip
    from linkedout_edge.decode import Limits, get_decoder
    from linkedout_edge.errors import VideoError

    try:
        frames = get_decoder("auto")(path, FILM_FRAMES, _DECODED, Limits())
    except VideoError:  # it went away since it was ranked
        return Picture(name)
    seen = container(path)
    width, height = seen.get("width", 0), seen.get("height", 0)
    return Picture(name, film_strip(frames, width / height if width > 0 and height > 0 else 1.0), len(frames))


def _facts(scene: Scene, outcome: Outcome, rec: Recommender) -> dict[str, str]:
    from linkedout_edge.cli.output import duration

    info, ranking = rec.info(), outcome.ranking
    looked_at = len({*(e.id for e in scene.events), *scene.candidates})
    stored = rec.store.stats()
    lists = ranking.ids, ranking.ids[::-1]  # in turns: the latest one would only be given again
    seconds = median(rec.rank(scene.events, lists[n % 2]).timing.total for n in range(_TIMED))
    facts = {
        "looking at a video": duration(outcome.prepare / max(1, looked_at)),
        f"ranking {len(ranking)} again": duration(seconds),
        "kept per video": f"{stored.payload_bytes // max(1, stored.videos)} bytes",
        "model": f"{info.bundle}, {info.precision}",
        "runs on": f"{info.backend}, {info.threads} threads" if info.threads != 1 else f"{info.backend}, 1 thread",
    }
    if scene.fitting:
        top = [r.id for r in ranking][: len(scene.fitting)]
        facts["fit the taste"] = f"{sum(i in scene.fitting for i in top)} of the top {len(top)}"
    return facts


def _write_page(page: Path, report: Report) -> None:
    from linkedout_edge.cli.report import render

    try:
        page.write_text(render(report), encoding="utf-8")
    except OSError as e:
        raise ArgumentError(f"{page} cannot be written: {e.strerror}; name another folder with --out") from e
