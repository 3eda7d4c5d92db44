"""Commands of the training half; `linkedout-edge` finds them through entry points."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from linkedout_edge.cli.options import SeveralValues, named_bundle

if TYPE_CHECKING:
    from linkedout_edge import Recommender
    from linkedout_quant.evaluation.tastes import Taste

# What distill.STAGES, tastes.TASTES and yardstick.BASELINES say; their modules load torch.
_STAGE = click.Choice(["crops", "tower", "language", "clips"])
_TASTE = click.Choice(["one", "mixed", "session"])
_BASELINE = click.Choice(["random", "histogram", "cosine", "teacher"])


@click.command()
@click.option(
    "--teacher",
    "teacher_name",
    required=True,
    help="composite or efficientnet-lite0, 1, 2 (offline, with --data); a Hugging Face video LLM, image classifier or "
    "CLIP-like model by name or folder; several with ImageNet's classes, joined by +; or none, for micro-videos only.",
)
@click.option(
    "--videos",
    "sources",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder of videos, photos and photo shards, a shard, or a .csv index with captions. May be repeated.",
)
@click.option(
    "--also",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A further folder or index. Its new items get their own crops, so cached features stay valid.",
)
@click.option("--split", default=None, help="Use only the rows of an index with this value in the column split.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with teacher/ or photos/class_names.npy for teachers that name classes and, where --videos is not "
    "given, images/*.csv.",
)
@click.option(
    "--texts", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="More captions for the LM, .csv."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Run folder; an interrupted run continues.",
)
@click.option(
    "--recipe",
    default="base",
    show_default=True,
    help="base, wide, refine, finish, axes, larger, clean, smoke, or the path of a .yaml.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder for the teacher's features, which several runs can share. [default: OUT/cache]",
)
@click.option(
    "--start",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Folder of a finished student to continue from.",
)
@click.option(
    "--from",
    "first",
    type=_STAGE,
    default=None,
    help="The first stage to run. With --start the default is the last, which keeps the tower.",
)
@click.option(
    "--until",
    type=_STAGE,
    default="clips",
    show_default=True,
    help="The last stage to run.",
)
@click.option(
    "--layers", default=None, help="Layers of the teacher to learn from, as 4,8,12; by default spread evenly."
)
@click.option("--prompt", default=None, help="The prompt of a video LLM. [default: the student's]")
@click.option(
    "--sources", "sources_text", default=None, help="Sources and licenses of the media, for the bundle's manifest."
)
@click.option(
    "--load-in", type=click.Choice(["8bit", "4bit"]), default=None, help="Load the teacher with bitsandbytes."
)
@click.option("--dtype", default=None, help="Precision of the teacher's weights, as float16.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to train."
)
@click.option(
    "--crops",
    type=click.Choice(["auto", "live", "cached"]),
    default="auto",
    show_default=True,
    help="live: make crops on the training device, each used once. cached: make them on the CPU and store them on "
    "disk. auto: live on a GPU if the teacher supports it, else cached.",
)
@click.option(
    "--teacher-device",
    default=None,
    help="Device of a Hugging Face teacher, such as cuda:1, or auto to use all. [default: the training device]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def distill(
    teacher_name: str,
    sources: tuple[Path, ...],
    also: tuple[Path, ...],
    split: str | None,
    data: Path | None,
    texts: Path | None,
    out: Path,
    recipe: str,
    cache: Path | None,
    start: Path | None,
    first: str | None,
    until: str,
    layers: str | None,
    prompt: str | None,
    sources_text: str | None,
    load_in: str | None,
    dtype: str | None,
    device: str,
    crops: str,
    teacher_device: str | None,
    as_json: bool,
) -> None:
    """Distill a teacher into a student: crops, tower, language, clips.

    On several GPUs: accelerate launch -m linkedout_edge.cli.main distill … On CPUs, one process each: make train.
    """
    from linkedout_edge.errors import ArgumentError
    from linkedout_quant.distill import distill_student, read_texts
    from linkedout_quant.media import find_media, new_media
    from linkedout_quant.recipes import load_recipe
    from linkedout_quant.teachers import load_teacher
    from linkedout_quant.training.loop import new_accelerator

    plan = load_recipe(recipe)
    accelerator = new_accelerator(device)  # fails before minutes of reading
    teacher, media = None, []
    if teacher_name == "none":
        if sources or also:
            raise ArgumentError(
                "--teacher none uses micro-videos only: leave out --videos and --also, or name a teacher"
            )
    else:
        if data is not None and not sources:
            media = find_media(sorted((data / "images").glob("*s.csv")), split=split or "train")
        else:
            media = find_media(sources, split=split)
        for number, source in enumerate(also, 1):
            media += new_media(find_media([source], split=split, collection=str(number)), media)
        teacher = load_teacher(
            teacher_name,
            data=data,
            layers=[int(x) for x in layers.split(",")] if layers else None,
            prompt=prompt,
            load_in=load_in,  # type: ignore[arg-type]  # click has checked it
            dtype=dtype,
            device=teacher_device or ("cpu" if accelerator.device.type == "cpu" else None),
        )
    if texts is None and data is not None and (data / "images" / "captions_text_only.csv").exists():
        texts = data / "images" / "captions_text_only.csv"
    held_back = {m.path.name for m in media if m.held_back}
    done = distill_student(
        out,
        plan,
        teacher=teacher,
        media=media,
        texts=read_texts(texts, held_back) if texts else (),
        sources=sources_text or "the user's own",
        cache=cache,
        start=start,
        first=first,
        until=until,
        live=None if crops == "auto" else crops == "live",
        accelerator=accelerator,
    )
    if not done.is_main:
        return
    if as_json:
        skipped = [{"file": str(s.path), "reason": s.reason} for s in done.skipped]
        click.echo(
            json.dumps({"run": str(out), "master": str(done.master) if done.master else None, "skipped": skipped})
        )
        return
    for s in done.skipped:
        click.echo(f"skipped: {s.path}: {s.reason}", err=True)
    if done.master:
        click.echo(f"distilled: {done.master}")
        click.echo(f"next: linkedout-edge export {out} --out {out / 'bundle'}")
    else:
        click.echo(f"stopped after {until}; to continue, repeat the command without --until")


@click.command(cls=SeveralValues)
@click.option(
    "--bundle",
    default=None,
    help="Precision of the built-in bundle, or a bundle's path.  [default: int8]",
)
@click.option("--precision", default=None, help="One of the bundle's precisions, such as int8 or int4.")
@click.option("--backend", default="onnxruntime", show_default=True, help="onnxruntime or openvino.")
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Rank photos filmed as clips: a folder whose sub-folders are kinds of things.",
)
@click.option("--index", help="A .csv in that folder that says what each photo shows, instead of sub-folders.")
@click.option(
    "--taste",
    "tastes",
    multiple=True,
    metavar="one|mixed|session...",
    type=_TASTE,
    help="What users like: one kind of thing, two, or one in a feed that begins with nothing. "
    "[default: with --photos all three, without them the exam]",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="NAME...",
    type=_BASELINE,
    help="What a taste is ranked by beside the product: random, histogram, cosine (of the same tokens), teacher. "
    "[default: the first three]",
)
@click.option(
    "--gates",
    is_flag=True,
    help="Do personal gates earn their place? Users whose taste lives at one depth, on micro-videos, with gates by "
    "evidence and with even ones.",
)
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="Folder with teacher/*.tflite, for the teacher."
)
@click.option(
    "--users",
    type=click.IntRange(min=1),
    help="Users of each taste or depth [default: 400], or of each length of history in the exam [default: 120].",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Of the tastes' and depths' users, and of how photos are filmed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all metrics as JSON.")
def evaluate(
    bundle: str | None,
    precision: str | None,
    backend: str,
    photos: Path | None,
    index: str | None,
    tastes: tuple[Taste, ...],
    baselines: tuple[str, ...],
    gates: bool,
    data: Path | None,
    users: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure how well a bundle ranks: the micro-video exam, or users of three tastes on your photos.

    The exam: unseen combinations, 100 candidates, histories of 2, 8 and 32 events. --taste without --photos asks the
    photos' questions of its micro-videos.
    """
    from linkedout_edge import Recommender
    from linkedout_edge.errors import ArgumentError

    if index is not None and photos is None:
        raise ArgumentError("--index says what --photos show: name their folder, too")
    if gates and (photos is not None or tastes or baselines):
        raise ArgumentError("--gates asks users of its own: leave --photos, --taste and --baseline out")
    load = partial(Recommender.load, **named_bundle(bundle, precision), backend=backend)
    if gates:
        _measure_gates(load, users or 400, seed, as_json)
    elif photos is not None or tastes:
        _measure_tastes(load, photos, index, tastes, baselines, data, users or 400, seed, as_json)
    elif baselines:
        raise ArgumentError("the exam has baselines of its own: --baseline goes with --taste or --photos")
    else:
        _take_exam(load, users or 120, as_json)


def _take_exam(load: Callable[[], Recommender], users: int, as_json: bool) -> None:
    from linkedout_edge.cli.output import console
    from linkedout_edge.microworld import make_exam
    from linkedout_quant.evaluation.exam import pool_videos, take_exam
    from linkedout_quant.evaluation.tables import exam_tables

    exam = make_exam(users_per_length=users)
    with load() as rec:
        info = rec.info()
        report = take_exam(rec, exam, pool_videos(exam, info.frame_size, info.frames))
    if as_json:
        click.echo(json.dumps(report))
        return
    for table in exam_tables(report, users):
        console().print(table)


def _measure_gates(load: Callable[[], Recommender], users: int, seed: int, as_json: bool) -> None:
    from linkedout_edge.cli.output import console, print_json
    from linkedout_edge.microworld import make_exam
    from linkedout_quant.evaluation.exam import encode, pool_videos, stored_values
    from linkedout_quant.evaluation.gates import compare_gates
    from linkedout_quant.evaluation.tables import gate_table, mean_gates

    exam = make_exam(users_per_length=1)
    with load() as rec:
        info = rec.info()
        videos = pool_videos(exam, info.frame_size, info.frames)
        encode(rec, videos)
        values, trust = stored_values(rec, [v.id for v in videos]), rec.taste([]).layers
    reports = compare_gates(values, [a for a, _ in exam.pool], users, seed, trust)
    if as_json:
        print_json(msgspec.to_builtins(reports))
        return
    console().print(gate_table(reports))
    console().print(mean_gates(reports), style="dim", markup=False)


def _measure_tastes(
    load: Callable[[], Recommender],
    photos: Path | None,
    index: str | None,
    tastes: Sequence[Taste],
    baselines: Sequence[str],
    data: Path | None,
    users: int,
    seed: int,
    as_json: bool,
) -> None:
    from linkedout_edge.bench.against import find_mobilenet
    from linkedout_edge.cli.output import console, note, print_json
    from linkedout_edge.microworld import make_exam
    from linkedout_quant.evaluation.photos import film, find_photos
    from linkedout_quant.evaluation.tables import by_kind, taste_table
    from linkedout_quant.evaluation.tastes import TASTES, able_kinds, clip_kinds
    from linkedout_quant.evaluation.yardstick import BASELINES, MaybeClip, encode_pool, measure_tastes, micro_clips

    asked = list(dict.fromkeys(tastes or TASTES))
    beside = list(dict.fromkeys(baselines or BASELINES[:3]))
    teacher = find_mobilenet(data, "--baseline teacher") if "teacher" in beside else None
    exam = make_exam(users_per_length=1)
    found = None if photos is None else find_photos(photos, index)
    kinds = found.kinds if found else clip_kinds([a for a, _ in exam.pool])
    for taste in asked:
        able_kinds(kinds, taste)  # else it is said only after minutes of encoding
    with load() as rec:
        info = rec.info()
        clips: Iterable[MaybeClip]
        clips = film(found.paths, seed, info.frames) if found else micro_clips(exam, info.frame_size, info.frames)
        pool = encode_pool(rec, clips, kinds, beside, teacher)
        reports = measure_tastes(rec, pool, asked, beside, users, seed)
    counts = dict(zip(pool.kinds.names, pool.kinds.member.sum(1).tolist(), strict=True))
    if as_json:
        print_json({"kinds": counts, "skipped": pool.skipped, "tastes": msgspec.to_builtins(reports)})
        return
    for reason in pool.skipped:
        note(f"skipped: {reason}")
    note(f"{len(pool.ids)} clips: " + ", ".join(f"{kind} {n}" for kind, n in counts.items()))
    for report in reports:
        console().print(taste_table(report))
        if line := by_kind(report):
            console().print(line, style="dim", markup=False)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def cost(as_json: bool) -> None:
    """Count parameters and multiply-accumulates of the built-in model on one clip."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from linkedout_edge.bundle import open_bundle
    from linkedout_quant.model import Student

    with open_bundle() as opened:
        config = opened.manifest.config
    student = Student(config).eval()
    side = config.frame_size
    frames = torch.zeros(1, config.frames, side, side, 3, dtype=torch.uint8)
    title = torch.zeros(1, config.title_tokens, dtype=torch.int32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student.encoder(frames, torch.ones(1, config.frames, dtype=torch.bool), title, title.bool())
    counts = {
        "parameters": sum(p.numel() for p in student.parameters()),
        "macs": counter.get_total_flops() // 2,
        "payload_bytes": config.payload_bytes,
    }
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(
            f"{counts['parameters'] / 1e6:.2f} M parameters, "
            f"{counts['macs'] / 1e9:.2f} GMAC a clip of {config.frames} frames"
        )
        click.echo(f"{counts['payload_bytes']} bytes stored per video")
