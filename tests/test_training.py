"""Training on a small scale: every stage runs, resumes, and refuses what would spoil a run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")

import numpy as np  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from linkedout_export.build import build, embed  # noqa: E402
from linkedout_export.cli import export  # noqa: E402
from linkedout_quant.cli import distill as distill_command  # noqa: E402
from linkedout_quant.master import MASTER, PROMPTS, load_student, save_master  # noqa: E402
from linkedout_quant.training.loop import StageRecipe, TrainingError, train_stage  # noqa: E402
from linkedout_quant.training.losses import alignment_loss, center_loss, relational_loss  # noqa: E402
from linkedout_quant.training.stills import CameraPath  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from linkedout_edge import Recommender, Video  # noqa: E402
from linkedout_edge.errors import ArgumentError  # noqa: E402

RECIPE = StageRecipe("toy", steps=40, batch=8, learning_rate=0.1, warmup=2)


def regression(seed=0):
    """A linear map to be found, and the losses of fitting it."""
    torch.manual_seed(seed)
    module = nn.Linear(3, 1)
    target = torch.tensor([[1.0, -2.0, 0.5]])

    def losses(draw, batch):
        x = torch.randn(4 * batch, 3)
        return {"fit": nn.functional.mse_loss(module(x), x @ target.T)}

    return nn.ModuleDict({"map": module}), losses


def test_a_stage_learns_and_writes_metrics(tmp_path):
    modules, losses = regression()
    train_stage(tmp_path, replace(RECIPE, steps=100), modules, losses)
    np.testing.assert_allclose(modules["map"].weight.detach(), [[1.0, -2.0, 0.5]], atol=0.05)
    rows = [json.loads(line) for line in (tmp_path / "toy.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [25, 50, 75, 100]
    assert rows[-1]["fit"] < rows[0]["fit"]
    assert (tmp_path / "toy.png").stat().st_size > 1000


def test_resuming_gives_the_same_as_going_through(tmp_path):
    whole, losses = regression()
    train_stage(tmp_path / "whole", RECIPE, whole, losses)

    class Killed(Exception):
        pass

    halves, losses = regression()

    def dies(draw, batch):
        if draw == 25:
            raise Killed
        return losses(draw, batch)

    with pytest.raises(Killed):
        train_stage(tmp_path / "halves", RECIPE, halves, dies, checkpoint_every=10)
    again, losses = regression(seed=5)
    train_stage(tmp_path / "halves", RECIPE, again, losses, checkpoint_every=10)
    torch.testing.assert_close(again["map"].weight, whole["map"].weight)


def test_another_recipe_is_refused_by_name(tmp_path):
    modules, losses = regression()
    train_stage(tmp_path, RECIPE, modules, losses)
    with pytest.raises(TrainingError, match="learning_rate"):
        train_stage(tmp_path, replace(RECIPE, learning_rate=0.2), modules, losses)


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path):
    modules, losses = regression()

    def breaks(draw, batch):
        return {"fit": losses(draw, batch)["fit"] * (float("nan") if draw == 15 else 1.0)}

    with pytest.raises(TrainingError, match="step 15"):
        train_stage(tmp_path, RECIPE, modules, breaks, checkpoint_every=10)
    assert torch.load(tmp_path / "toy.pt", weights_only=True)["step"] == 10


def test_losses_prefer_the_right_answer():
    target = torch.randn(6, 8)
    assert relational_loss(target * 3, target) < 1e-10
    assert relational_loss(target.flip(0), target) > 1e-3


def test_a_batch_that_does_not_fit_is_halved_and_said(tmp_path, capsys):
    modules, losses = regression()
    tried = []

    def hungry(draw, batch):
        tried.append(batch)
        if batch > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return losses(draw, batch)

    train_stage(tmp_path, replace(RECIPE, steps=25), modules, hungry)
    assert tried[:3] == [8, 4, 2]
    assert set(tried[3:]) == {2}
    assert "out of memory at step 0; the batch is 2" in capsys.readouterr().err
    assert json.loads((tmp_path / "toy.jsonl").read_text())["batch"] == 2

    def insatiable(draw, batch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(TrainingError, match="batch of one does not fit"):
        train_stage(tmp_path / "never", RECIPE, modules, insatiable)


def test_errors_of_our_own_making_are_not_taken_for_a_lack_of_memory(tmp_path):
    modules, _ = regression()

    def wrong(draw, batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        train_stage(tmp_path, RECIPE, modules, wrong)


def test_alignment_prefers_the_right_partner():
    a = torch.randn(6, 16)
    assert alignment_loss(a, a) < 0.1
    assert alignment_loss(a, a.flip(0)) > 2


def test_camera_paths_stay_inside_their_photo():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for _ in range(20):
        path = CameraPath.random(photo.shape, rng)
        assert path.frames(photo, np.linspace(0, 1, 4), 32).shape == (4, 32, 32, 3)
        for x, y, side in (path.start, path.end):
            assert x >= 0
            assert y >= 0
            assert x + side <= 120 / 90 + 1e-9
            assert y + side <= 1 + 1e-9


def test_what_all_rows_share_is_what_centering_costs():
    rows = torch.tensor([[[1.0, 2.0], [-1.0, -2.0]], [[3.0, 4.0], [3.0, 4.0]]])
    assert center_loss(rows[0]).item() == 0
    assert center_loss(rows[1]).item() == pytest.approx(1)
    assert center_loss(rows).item() == pytest.approx(0.5)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A run folder of the recipe ``smoke``, on micro-videos alone."""
    run = tmp_path_factory.mktemp("smoke")
    arguments = ["--teacher", "none", "--recipe", "smoke", "--out", str(run), "--json"]
    result = CliRunner().invoke(distill_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    said = json.loads(result.stdout.splitlines()[-1])
    assert said == {"run": str(run), "master": str(run / MASTER), "skipped": []}
    return run


def test_from_nothing_to_a_bundle_that_ranks(smoke, tmp_path):
    manifest = build(smoke, None, tmp_path / "bundle", name="smoke", users=3)
    assert list(manifest.precisions) == ["int8", "int4", "fp32"]
    assert manifest.precisions["fp32"].agreement["kendall_tau"] == 1.0
    embed(tmp_path / "bundle", tmp_path / "small")
    rng = np.random.default_rng(0)
    videos = [Video(frames=rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), id=f"v{i}") for i in range(5)]
    for precision in ("int8", "int4"):
        with Recommender.load(tmp_path / "small", precision=precision) as rec:
            assert len(rec.rank(videos[:2], videos[2:])) == 3


def test_a_prompt_is_baked_in_when_exporting(smoke, tmp_path):
    def exported(*arguments):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        result = CliRunner().invoke(export, [str(smoke), "--out", str(out), "--users", "0", "--json", *arguments])
        assert result.exit_code == 0, result.output + str(result.exception)
        return json.loads(result.stdout.splitlines()[-1])

    general, own = exported(), exported("--prompt", "who is singing?")
    assert [m["prompt"] for m in (general, own)] == [PROMPTS["general"], "who is singing?"]
    assert general["token_space"] != own["token_space"]
    refused = CliRunner().invoke(export, [str(smoke), "--out", str(tmp_path / "no"), "--prompt", " "])
    assert isinstance(refused.exception, ArgumentError)
    bundle = CliRunner().invoke(export, [str(tmp_path / "0"), "--prompt", "objects"])
    assert "baked in" in str(bundle.exception)


def test_a_master_of_before_loads_without_its_user_encoder(smoke, tmp_path, caplog):
    run = Path(shutil.copytree(smoke, tmp_path / "before"))
    stored = load_file(run / MASTER)
    assert all(name.startswith("encoder.") for name in stored)
    save_file(stored | {"user.strength": torch.ones(3).half()}, run / MASTER)
    config = json.loads((run / "config.json").read_bytes())
    (run / "config.json").write_text(json.dumps(config | {"user_width": 64}))
    with caplog.at_level("DEBUG", "linkedout_quant"):
        student = load_student(run)
    assert "left out 1 weights of a user encoder" in caplog.text
    save_master(run, student)
    again = load_file(run / MASTER)
    assert list(again) == list(stored)
    assert all(torch.equal(again[name], stored[name]) for name in stored)
    save_file(stored | {"other.weight": torch.ones(3)}, run / MASTER)
    with pytest.raises(ArgumentError, match="another version"):
        load_student(run)


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="finish the training"):
        load_student(tmp_path)
