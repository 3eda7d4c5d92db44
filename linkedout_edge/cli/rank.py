"""`linkedout-edge rank`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linkedout_edge.cli.data import absolute, data_arguments, data_options, default_data_dir, stored_arguments
from linkedout_edge.cli.options import NO_VIDEO_INSIDE, SeveralValues, expand_videos, model_options, parse_watched
from linkedout_edge.errors import ArgumentError, StorageFullError, StorageReadOnlyError

if TYPE_CHECKING:
    from linkedout_edge import Event, Failed, Ranking, RankOptions, Recommender, Selection
    from linkedout_edge.encode.encoder import Effort


NOTHING_STORED = (
    "nothing is stored that could be ranked: name videos with --candidates, or run linkedout-edge encode FOLDER first"
)


@dataclass(frozen=True)
class Outcome:
    """A ranking, the failures before it, and the seconds that decoding and encoding took."""

    ranking: Ranking
    failed: tuple[Failed, ...]
    prepare: float

    def to_dict(self, *, explain: bool) -> dict[str, Any]:
        """Plain JSON values: as `Ranking.to_dict`, with the time in which the videos were prepared."""
        result = self.ranking.to_dict()
        if explain:
            for entry, ranked in zip(result["ranked"], self.ranking, strict=True):
                entry["explanation"] = ranked.explain().to_dict()
        result["failed"] = [asdict(f) for f in self.failed]
        timing = result["timing"]
        result["timing"] = {
            "prepare": self.prepare,
            "user": timing["user"],
            "score": timing["score"],
            "total": self.prepare + timing["total"],
        }
        return result


@click.command(cls=SeveralValues)
@click.argument("others", nargs=-1, metavar="")
@click.option("--history", multiple=True, metavar="VIDEO...", help="Watched videos, oldest first; see above.")
@click.option("--candidates", multiple=True, metavar="VIDEO...", help="Videos to rank. [default: all stored ones]")
@model_options
@data_options
@click.option(
    "--decoder", default="auto", show_default=True, help="auto, pyav, opencv, or pyav:cuda (or another device)."
)
@click.option(
    "--decoders", type=click.IntRange(min=0), help="Number of decoder processes; 0 for none. [default: as needed]"
)
@click.option(
    "--effort",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="How to encode new videos; quick uses key frames only.",
)
@click.option("--top-k", type=click.IntRange(min=1), help="Length of the list.")
@click.option("--include-watched", is_flag=True, help="Also rank watched videos, which are otherwise left out.")
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="0 to 1: how much neighbours in the list should differ.",
)
@click.option(
    "--explore", type=click.FloatRange(0, 1), default=0.0, help="0 to 1: prefer videos about which little is known."
)
@click.option("--fold-duplicates", is_flag=True, help="Show only the best of near-identical videos.")
@click.option("--deadline", type=click.FloatRange(min=0), metavar="MS", help="Answer after about MS milliseconds.")
@click.option("--explain", is_flag=True, help="Explain the place of each video.")
@click.option("--json", "as_json", is_flag=True, help="Print the ranking as JSON.")
@click.pass_context
def rank(
    ctx: click.Context,
    others: tuple[str, ...],
    history: tuple[str, ...],
    candidates: tuple[str, ...],
    model: dict[str, Any],
    decoder: str,
    decoders: int | None,
    effort: Any,
    top_k: int | None,
    include_watched: bool,
    diversity: float,
    explore: float,
    fold_duplicates: bool,
    deadline: float | None,
    explain: bool,
    as_json: bool,
    data_dir: Path | None,
    key_file: Path | None,
) -> None:
    """Rank videos by what was watched.

    Both lists take files, folders and patterns: --history seen/ --candidates new/*.mp4. In a folder and its subfolders,
    videos are recognized by their content, as in `encode`. Add @ and a fraction to say how much of a video was watched:
    seen/dull.mp4@0.1 was skipped.

    Without --history, the history of `linkedout-edge history` is used. Without --candidates, everything that `encode`
    stored is ranked. In both cases, videos that are new get stored as well. With both options, only the videos are read
    and nothing is written, unless --data-dir names a folder.

    New videos are encoded quickly, from their key frames; see --effort. With --deadline, videos that could not be
    encoded in time are listed last, as pending.

    Exit code: 0 if something was ranked, 1 if all candidates or all watched videos failed, 2 for a mistake in the call.
    """
    from linkedout_edge import RankOptions, Recommender, Video
    from linkedout_edge.cli.output import note, print_json

    if others:
        raise click.UsageError(
            f"{others[0]} stands alone: put videos to rank behind --candidates, and watched ones behind --history"
        )
    events = read_history(history)
    videos = expand_videos(candidates)
    kept: dict[str, Any] = {}
    if not candidates:
        kept = stored_arguments(data_dir, key_file)
        if not kept:
            raise ArgumentError(NOTHING_STORED)
    elif data_dir is not None or (not history and default_data_dir().exists()):
        kept = data_arguments(data_dir, key_file)
    # The same names as `encode` and `history` give and keep, whether or not anything is kept here.
    videos = absolute(videos)
    events = [replace(e, video=Video(absolute([e.id])[0])) for e in events]
    with Recommender.load(**model, **kept, decoder=decoder, decoders=decoders) as rec:
        if not candidates and not len(rec.store):
            raise ArgumentError(NOTHING_STORED)
        if not history:
            events = list(rec.history)
        outcome = prepare_and_rank(
            rec,
            events,
            videos if candidates else None,
            RankOptions(
                top_k=top_k,
                exclude_watched=not include_watched,
                diversity=diversity,
                explore=explore,
                fold_duplicates=fold_duplicates,
                deadline_ms=deadline,
            ),
            effort=effort,
        )
        lost = {f.id for f in outcome.failed if f.role == "history" and f.code != "pending"}
        nothing_watched = bool(events) and lost >= {e.id for e in events}
        if as_json:
            print_json(outcome.to_dict(explain=explain))
        else:
            if not events and len(outcome.ranking):
                note("Nothing was watched, so the list begins with videos that differ: see --history, and history add.")
            show_ranking(outcome, rec, len(events), explain=explain, table=not nothing_watched)
            if nothing_watched:
                none = "The watched video cannot" if len(lost) == 1 else f"None of the {len(lost)} watched videos can"
                note(f"{none} be used, so no ranking is shown.")
        if not (nothing_watched or len(outcome.ranking) or outcome.failed):
            note("All of these videos were watched: --include-watched ranks them as well.")
    if nothing_watched or not len(outcome.ranking):
        ctx.exit(1)


def read_history(values: Iterable[str]) -> list[Event]:
    """Events of ``--history``: paths, folders and patterns, each with ``@fraction`` or not."""
    from linkedout_edge import Event

    events = []
    for value in values:
        path, watched = parse_watched(value)
        events += [Event(p, 1.0 if watched is None else watched) for p in expand_videos([path])]
    return events


def prepare_and_rank(
    rec: Recommender,
    events: Sequence[Event],
    candidates: Sequence[str] | None,
    options: RankOptions | None = None,
    *,
    effort: Effort = "full",
) -> Outcome:
    """Encode with progress, then rank what could be encoded; each failure keeps the role in which it was named.

    With a deadline, `Recommender.rank` encodes what it has time for. `candidates` is None for all that is stored,
    whose files are not looked at.
    """
    from linkedout_edge import Failed, RankOptions
    from linkedout_edge.cli.output import progress

    options = options or RankOptions()
    if options.deadline_ms is not None:
        ranking = rec.rank(events, _stored(rec, options) if candidates is None else candidates, options)
        return Outcome(ranking, _clearer(ranking.failed), 0.0)
    start = time.perf_counter()
    # A stored event's file may be gone, and need not be there.
    watched = [e.id for e in events if e.id not in rec.store]
    named = candidates or []
    distinct = list(dict.fromkeys([*watched, *named]))
    failed: dict[str, Failed] = {}
    with progress("Looking at videos", len(distinct)) as advance, suppress(StorageReadOnlyError, StorageFullError):
        # What cannot be kept is encoded by `rank`, which needs it in memory only, and warns.
        failed = {f.id: f for f in rec.encode(distinct, advance, effort=effort).failed}
    prepare = time.perf_counter() - start
    to_rank = _stored(rec, options) if candidates is None else [c for c in named if c not in failed]
    ranking = rec.rank([e for e in events if e.id not in failed], to_rank, options)
    roles = [("history", list(dict.fromkeys(e.id for e in events))), ("candidate", list(named))]
    before = [
        Failed(i, "history" if role == "history" else "candidate", failed[i].code, failed[i].reason)
        for role, ids in roles
        for i in ids
        if i in failed
    ]
    return Outcome(ranking, _clearer((*before, *ranking.failed)), prepare)


def _clearer(failed: Iterable[Failed]) -> tuple[Failed, ...]:
    """The same failures; of a folder it is said what was looked for in it."""
    return tuple(replace(f, reason=NO_VIDEO_INSIDE) if Path(f.id).is_dir() else f for f in failed)


def _stored(rec: Recommender, options: RankOptions) -> Selection | None:
    """Everything in the store, as `Recommender.rank` takes it: None leaves out what was watched."""
    return None if options.exclude_watched else rec.store.select()


def show_ranking(
    outcome: Outcome,
    rec: Recommender,
    events: int,
    *,
    explain: bool,
    names: Mapping[str, str] | None = None,
    table: bool = True,
) -> None:
    """Print a table of the ranking, what failed, and where and how fast it ran; `names` are shown in place of ids."""
    from rich.table import Table

    from linkedout_edge.cli.output import console, duration, layer_bars, plain, short_names

    out, ranking, info = console(), outcome.ranking, rec.info()
    names = names or short_names([r.id for r in ranking])
    if len(ranking) and table:
        rows = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for title, justify in (("#", "right"), ("video", "left"), ("score", "right"), ("layers", "left")):
            rows.add_column(title, justify=justify)  # type: ignore[arg-type]
        scale = max((abs(v) for r in ranking for v in r.layers), default=0.0)
        for r in ranking:
            name = plain(names[r.id], "bold" if r.rank == 1 else "")
            if explain:
                name.append("\n").append_text(plain(r.explain().sentence, "dim"))
            score = f"{r.score:+.3f}" if r.source in ("content", "prior", "quick") else r.source.replace("_", " ")
            rows.add_row(str(r.rank), name, score, layer_bars(r.layers, scale))
        out.print(rows)
    if outcome.failed:
        out.print(plain(f"{len(outcome.failed)} could not be used:", "yellow"))
        for f in outcome.failed:
            out.print(plain(f"  {f.id} ({f.role}): {f.reason} [{f.code}]"))
    quick = sum(r.source == "quick" for r in ranking)
    if quick:
        out.print(plain(f"{quick} encoded by a quick look: use --effort full, or encode, for a full one.", "dim"))
    took = f"encoded in {duration(outcome.prepare)}, ranked in {duration(ranking.timing.total)}"
    where = f"{info.bundle} {info.precision} on {info.backend} ({', '.join(dict.fromkeys(info.devices.values()))})"
    if table:
        out.print(plain(f"{len(ranking)} ranked by {events} watched · {took} · {where}", "dim"))
