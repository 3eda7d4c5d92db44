"""Distillation end to end on a small scale, from a toy teacher to a student; and what a run folder refuses."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")
pytest.importorskip("accelerate", reason="the workstation half is not installed")

from click.testing import CliRunner  # noqa: E402
from linkedout_quant.cli import distill  # noqa: E402
from linkedout_quant.distill import distill_student  # noqa: E402
from linkedout_quant.master import PROMPTS, load_student, set_prompt  # noqa: E402
from linkedout_quant.media import find_media  # noqa: E402
from linkedout_quant.recipes import NAMES, Recipe, load_recipe  # noqa: E402
from linkedout_quant.teachers.base import TeacherFeatures  # noqa: E402
from linkedout_quant.tokenizer import from_portable  # noqa: E402
from linkedout_quant.training.clips import color_layout, facet_shares, latent_weights, layer_weights  # noqa: E402
from linkedout_quant.training.crops import CropCache  # noqa: E402
from linkedout_quant.training.loop import TrainingError  # noqa: E402

from linkedout_edge import Recommender, Video  # noqa: E402
from linkedout_edge.errors import ArgumentError  # noqa: E402


class ColorTeacher:
    """Sees nothing but colours by place: enough to show what a student is taught."""

    name, layer_names, single_threaded = "colours", ("cells", "row"), True

    def __init__(self, salt="", looks=None):
        self.fingerprint = hashlib.sha256(f"colours{salt}".encode()).hexdigest()
        self.looks = looks if looks is not None else []

    def extract_features(self, clips, titles=None):
        self.looks.append(len(clips))
        cells = np.stack([color_layout(clip) for clip in clips]).reshape(len(clips), 16, 3)
        return TeacherFeatures((cells, cells[:, :3]), cells.reshape(len(clips), -1), cells.mean(1))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty little pictures with captions, one unreadable file, and a short video."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    for i in range(40):
        picture = cv2.resize(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), (64, 48))
        cv2.imwrite(str(folder / f"{i}.png"), picture)
        lines.append(f"{i}.png,picture number {i}")
    (folder / "broken.png").write_bytes(b"no picture")
    writer = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for i in range(20):
        writer.write(np.full((48, 64, 3), 10 * i, np.uint8))
    writer.release()
    (folder / "index.csv").write_text("\n".join(lines) + "\nbroken.png,nothing\nfilm.mp4,it gets brighter\n")
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A finished run of the recipe `smoke` on them."""
    run = tmp_path_factory.mktemp("run")
    done = distill_student(
        run, load_recipe("smoke"), teacher=ColorTeacher(), media=find_media([photos / "index.csv"]), texts=["a b c"]
    )
    assert [s.path.name for s in done.skipped] == ["broken.png"]
    assert done.master == run / "master.safetensors"
    return run


def test_a_run_leaves_a_student_metrics_plots_and_what_it_was(run):
    assert load_student(run).config == load_recipe("smoke").model
    for stage in ("tower", "language", "clips"):
        row = json.loads((run / f"{stage}.jsonl").read_text().splitlines()[-1])
        assert row["step"] == 2
        assert (run / f"{stage}.png").stat().st_size > 1000
    clips = json.loads((run / "clips.jsonl").read_text().splitlines()[-1])
    assert {"facets", "captions", "words", "micro_relations", "micro_centre"} <= set(clips)
    told = json.loads((run / "run.json").read_text())
    assert told["teacher"] == "colours"
    assert told["skipped"][0]["file"] == "broken.png"


def test_batch_norms_keep_what_they_learned_of_photos(run):
    tower = torch.load(run / "tower.pt", weights_only=True)["modules"]
    student = load_student(run).encoder.tower.state_dict()
    kept = [k for k in student if k.endswith(("running_mean", "running_var"))]
    assert kept
    for k in kept:
        assert torch.equal(tower[f"tower.{k}"].half(), student[k].half())


def test_going_on_costs_the_teacher_nothing_and_changes_nothing(run, photos):
    before, looks = (run / "master.safetensors").read_bytes(), []
    distill_student(
        run,
        load_recipe("smoke"),
        teacher=ColorTeacher(looks=looks),
        media=find_media([photos / "index.csv"]),
        texts=["a b c"],
    )
    assert (run / "master.safetensors").read_bytes() == before
    assert not looks


def test_going_on_with_anything_else_is_refused_by_name(run, photos):
    media = find_media([photos / "index.csv"])
    recipe = load_recipe("smoke")
    longer = msgspec.structs.replace(recipe, clips=replace(recipe.clips, steps=3))
    with pytest.raises(TrainingError, match=r"recipe\.clips\.steps: 2 → 3"):
        distill_student(run, longer, teacher=ColorTeacher(), media=media)
    with pytest.raises(TrainingError, match="teacher_fingerprint"):
        distill_student(run, recipe, teacher=ColorTeacher("other"), media=media)
    with pytest.raises(TrainingError, match="media: "):
        distill_student(run, recipe, teacher=ColorTeacher(), media=media[:20])


def test_cached_crops_carry_the_teachers_view_of_the_same_crop(run):
    (cache,) = (run / "cache").glob("crops-*")
    crops = CropCache([cache], [1])
    batch = crops.batch(0, 0, 12)
    again = CropCache([cache], [1]).batch(0, 0, 12)
    assert torch.equal(batch.crops, again.crops)
    mean, scale = crops.statistics["layer0"]
    for crop, cells in zip(batch.crops.numpy(), batch.layers[0].numpy(), strict=True):
        # Mirrored or not, the cells lie where the picture has them.
        want = color_layout(crop[None]).reshape(16, 3)
        assert np.abs(cells * scale + mean - want).mean() < 0.05


def test_a_finished_student_goes_on_from_any_stage_with_more_photos(run, photos, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    for i in range(30):
        cv2.imwrite(str(more / f"{i}@0.png"), np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    media, looks = find_media([photos / "index.csv"]), []
    further = find_media([more], collection="more")
    cache = Path(shutil.copytree(run / "cache", tmp_path / "cache"))  # other tests look into the run's own
    recipe, arguments = load_recipe("smoke"), {"cache": cache, "start": run, "texts": ["a b c"]}
    teacher = ColorTeacher(looks=looks)
    before = load_student(run).encoder.state_dict()

    done = distill_student(
        tmp_path / "all", recipe, teacher=teacher, media=[*media, *further], first="crops", until="tower", **arguments
    )
    assert done.master is None
    assert not (tmp_path / "all" / "clips.jsonl").exists()
    done = distill_student(
        tmp_path / "all", recipe, teacher=teacher, media=[*media, *further], first="crops", **arguments
    )
    assert done.master == tmp_path / "all" / "master.safetensors"
    assert not (tmp_path / "all" / "language.jsonl").exists()  # it knows its language already
    assert len(list(cache.glob("crops-*"))) == 2  # the first is there, and stays
    images = [len(m) for m in (media, further)]
    crops = CropCache(sorted(cache.glob("crops-*")), images)
    sources = np.concatenate([crops.batch(0, i, 50).sources for i in range(4)])
    assert sources.max() >= images[0]  # places count through
    assert sources.min() == -1

    distill_student(tmp_path / "last", recipe, teacher=teacher, media=media, **arguments)
    after = load_student(tmp_path / "last").encoder.state_dict()
    same = {k: torch.equal(before[k].half(), after[k].half()) for k in before}
    assert all(same[k] for k in before if k.startswith("tower"))  # a stage that is left out leaves its part as it is
    learned = [k for k in before if k.endswith("qkv.weight") or k.endswith("project.weight")]
    assert learned
    assert not any(same[k] for k in learned)

    with pytest.raises(ArgumentError, match="--start"):
        distill_student(tmp_path / "none", recipe, teacher=teacher, media=media, first="clips")


def test_a_finished_student_goes_on_with_other_frames_but_not_with_another_shape(run, tmp_path):
    model = load_recipe("smoke").model
    other = msgspec.structs.replace(model, frames=model.frames + 1, frame_size=model.frame_size + 16)
    recipe = msgspec.structs.replace(load_recipe("smoke"), model=other)
    done = distill_student(tmp_path / "larger", recipe, start=run)
    assert load_student(tmp_path / "larger").config == other
    assert done.master is not None
    wider = msgspec.structs.replace(recipe, model=msgspec.structs.replace(other, lm_width=2 * other.lm_width))
    with pytest.raises(ArgumentError, match="another shape"):
        distill_student(tmp_path / "wider", wider, start=run)


def test_prompts_ask_for_facets():
    assert set(PROMPTS) == {"general", "objects", "looks"}
    assert np.ptp(latent_weights("general")) == 0
    assert latent_weights("objects").argmax() != latent_weights("looks").argmax()
    for prompt in PROMPTS:
        shares = facet_shares(prompt)
        assert sum(shares.values()) == pytest.approx(1)
        assert (max(shares, key=shares.get) == "object") == (prompt == "objects")


def test_layers_share_the_facets_and_the_last_follows_all_alike():
    weights = layer_weights(6) ** 2
    assert np.ptp(weights[-1]) == 0  # the last follows all alike
    firsts = {tuple(np.flatnonzero(row == row.max())) for row in weights[:-1]}
    assert len(firsts) == 3
    assert np.all(weights[:-1].max(0) == weights[:-1].max())  # each facet comes first somewhere
    assert np.ptp(layer_weights(1)) == 0


def test_workers_are_copied_from_a_process_whose_opencv_has_threads(tmp_path):
    """A copied process would wait for ever for OpenCV threads that it does not have, so they end before."""
    script = tmp_path / "cut.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nimport cv2, numpy as np\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_distill import ColorTeacher\nfrom linkedout_quant.training.crops import write_shards\n"
        "cv2.setNumThreads(3)\n"
        "pictures = [cv2.resize(np.zeros((64, 64, 3), np.uint8), (3000, 3000))[:50, :50] for _ in range(3)]\n"
        "write_shards(ColorTeacher(), pictures, Path(sys.argv[1]), 2, 4, 32, 2)\n"
        "print(cv2.getNumThreads())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "crops")], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "3"
    assert len(list((tmp_path / "crops").glob("000[01]"))) == 2


def test_another_prompt_is_another_token_space(run):
    from linkedout_export.writer import token_space

    student = load_student(run)
    before = token_space(student)
    set_prompt(student, from_portable((run / "tokenizer.json").read_bytes()), PROMPTS["objects"])
    assert token_space(student) != before


def test_recipes_are_found_by_name_or_path_and_checked(tmp_path):
    for name in NAMES:
        assert isinstance(load_recipe(name), Recipe)
    assert load_recipe("base") == Recipe()
    with pytest.raises(ArgumentError, match="base"):
        load_recipe("bsae")
    (tmp_path / "mine.yaml").write_text("crops: {shards: 3}\n")
    assert load_recipe(str(tmp_path / "mine.yaml")).crops.shards == 3
    (tmp_path / "wrong.yaml").write_text("corps: {shards: 3}\n")
    with pytest.raises(ArgumentError, match="corps"):
        load_recipe(str(tmp_path / "wrong.yaml"))


def test_the_command_tells_what_to_do(tmp_path, photos):
    def said(*arguments):
        result = CliRunner().invoke(distill, [*arguments, "--out", str(tmp_path / "run"), "--recipe", "smoke"])
        assert result.exit_code != 0
        return str(result.exception) + result.output

    assert "leave out --videos and --also" in said("--teacher", "none", "--videos", str(photos))
    (tmp_path / "empty").mkdir()
    assert "no videos or photos found" in said("--teacher", "x", "--videos", str(tmp_path / "empty"))


def test_a_video_llms_folder_becomes_a_bundle_that_ranks(tmp_path, photos):
    """The whole way: a SmolVLM checkpoint (the real class, random weights) in, a ranking bundle out."""
    pytest.importorskip("transformers", reason="the workstation half is not installed")
    from linkedout_export.build import build
    from vlm_checkpoints import make_smolvlm

    teacher, run = make_smolvlm(tmp_path / "smolvlm"), tmp_path / "run"
    arguments = [
        "--teacher",
        str(teacher),
        "--videos",
        str(photos / "index.csv"),
        "--recipe",
        "smoke",
        "--out",
        str(run),
    ]
    result = CliRunner().invoke(distill, [*arguments, "--json"], catch_exceptions=False)
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["master"] == str(run / "master.safetensors")
    assert [s["file"] for s in said["skipped"]] == [str(photos / "broken.png")]
    build(run, photos, tmp_path / "bundle", name="from-smolvlm", users=2)
    pictures = sorted(photos.glob("1*.png"))
    with Recommender.load(tmp_path / "bundle") as rec:
        videos = [Video(frames=cv2.imread(str(p))[None, ..., ::-1], id=p.name) for p in pictures]
        ranking = rec.rank([str(photos / "film.mp4")], videos)
    assert len(ranking) == len(pictures)
    assert not ranking.failed


@pytest.mark.slow
def test_two_processes_train_one_student(tmp_path):
    """Gradients are averaged: both processes end with the same weights, and a bundle's master is written once."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom linkedout_quant.distill import distill_student\n"
        "from linkedout_quant.recipes import load_recipe\n"
        "done = distill_student(Path(sys.argv[1]), load_recipe('smoke'))\nprint('master', done.master is not None)\n"
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29733",
            str(script), str(tmp_path / "run"),
        ],
        capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("master")) == [
        "master False",
        "master True",
    ]
    assert load_student(tmp_path / "run").config == load_recipe("smoke").model
