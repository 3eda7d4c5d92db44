"""Crops that are made where training happens: the device path, on the CPU with tiny shapes."""

import json
from dataclasses import fields, replace

import cv2
import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")
pytest.importorskip("accelerate", reason="the workstation half is not installed")

from click.testing import CliRunner  # noqa: E402
from image_checkpoints import make_vit  # noqa: E402
from linkedout_quant.cli import distill  # noqa: E402
from linkedout_quant.distill import distill_student  # noqa: E402
from linkedout_quant.media import find_media  # noqa: E402
from linkedout_quant.recipes import load_recipe  # noqa: E402
from linkedout_quant.teachers.images import ImageTeacher, Seen  # noqa: E402
from linkedout_quant.training import live, tower  # noqa: E402
from linkedout_quant.training.live import (  # noqa: E402
    BLENDED,
    CUT,
    PASTED,
    SINGLE,
    CropPlan,
    LiveCrops,
    as_frames,
    choose_live,
    cut_crops,
    odds_of,
)
from linkedout_quant.training.loop import TrainingError, new_accelerator  # noqa: E402
from test_distill import ColorTeacher  # noqa: E402
from test_shards import write_shard  # noqa: E402

from linkedout_edge.errors import ArgumentError  # noqa: E402

CPU, SIDE = torch.device("cpu"), 32


class TinyTeacher(ImageTeacher):
    """A fixed random convolution: a network on squares, as small as one can be."""

    name, fingerprint, layer_names, side = "tiny", "f" * 64, ("map",), SIDE

    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.net = torch.nn.Conv2d(3, 6, 8, 8)
        self.requires_grad_(False)
        self.batches = []

    def see(self, images):
        assert images.shape[1:] == (3, SIDE, SIDE)
        self.batches.append(len(images))
        seen = self.net(images / 255 - 0.5)  # [B, 6, 4, 4]
        pooled = seen.mean((2, 3))
        return Seen((seen.flatten(2).transpose(1, 2),), pooled, pooled[:, :4].tanh())


def pictures(count=6, side=40):
    rng = np.random.default_rng(3)
    return [cv2.resize(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), (side, side)) for _ in range(count)]


def made(count=8, **options):
    options = {"weights": [1.0], "side": 40, "frame_size": 16, "device": CPU} | options
    return LiveCrops(
        options.pop("teacher", None) or TinyTeacher(), options.pop("collections", [pictures(count)]), **options
    )


def plain(count, **changed):
    """A plan of whole photos, as they are."""
    zero, one = np.zeros(count, np.float32), np.ones(count, np.float32)
    plan = CropPlan(
        photos=np.arange(count), boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1)),
        mirrored=zero > 0, angles=zero, zooms=one, contrasts=one, gains=np.ones((count, 3), np.float32), gray=zero > 0,
        kinds=np.full(count, SINGLE), shares=one / 2, across=zero > 0, pastes=np.zeros((count, 3), np.float32),
    )  # fmt: skip
    return replace(plan, **changed)


def cut(plan, side=SIDE, photos=None):
    """Crops as uint8 [B, side, side, 3]."""
    photos = torch.from_numpy(np.stack(photos or pictures(len(plan.photos))))
    return cut_crops(photos, plan, side).permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


def apart(a, b):
    """Mean difference in grey levels."""
    return np.abs(a.astype(np.float32) - b.astype(np.float32)).mean()


def test_a_whole_photo_is_the_photo_and_mirrored_its_mirror_image():
    photos = pictures(2)
    straight, mirrored = cut(plain(2, mirrored=np.array([False, True])), 40, photos)
    np.testing.assert_array_equal(straight, photos[0])
    np.testing.assert_array_equal(mirrored, photos[1][:, ::-1])


def test_a_crop_is_what_opencv_cuts():
    photo, side = pictures(1, 60)[0], 48
    x, y, width, height = 9, 15, 36, 24  # in pixels
    box = np.array([[(x + width / 2) / 30 - 1, (y + height / 2) / 30 - 1, width / 60, height / 60]], np.float32)
    got = cut(plain(1, boxes=box), side, [photo])[0]
    wanted = cv2.resize(photo[y : y + height, x : x + width], (side, side))
    assert apart(got[2:-2, 2:-2], wanted[2:-2, 2:-2]) < 1.0  # at the edges the photo goes on, and a cut piece does not


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_turns_as_opencv_turns_it(mirrored):
    photo, side, degrees, zoom = pictures(1)[0], 40, 20.0, 1.2
    angles, zooms = np.array([np.radians(degrees)], np.float32), np.array([zoom], np.float32)
    got = cut(plain(1, angles=angles, zooms=zooms, mirrored=np.array([mirrored])), side, [photo])[0]
    before = np.ascontiguousarray(photo[:, ::-1]) if mirrored else photo
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, zoom)
    wanted = cv2.warpAffine(before, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    assert apart(got, wanted) < 1.5
    assert apart(got, before) > 8


def test_colors_change_as_planned():
    photos = pictures(3)
    gains = np.array([[1, 1, 1], [0.5, 1, 2], [1, 1, 1]], np.float32)
    contrasts = np.array([0.5, 1, 1], np.float32)
    faded, tinted, gray = cut(plain(3, gains=gains, contrasts=contrasts, gray=np.array([0, 0, 1]) > 0), 40, photos)
    assert apart(faded, (photos[0].astype(np.float32) - 128) * 0.5 + 128) < 0.6
    assert apart(tinted, np.clip(photos[1] * gains[1], 0, 255)) < 0.6
    assert apart(gray[..., 0], cv2.cvtColor(photos[2], cv2.COLOR_RGB2GRAY)) < 0.6
    assert np.ptp(gray, axis=-1).max() == 0


def test_the_crop_before_is_mixed_in_as_planned():
    photos = pictures(4)
    kinds = np.array([BLENDED, CUT, PASTED, CUT])
    shares = np.array([0.3, 0.5, 0.5, 0.5], np.float32)
    pastes = np.tile(np.array([0.25, 0.5, 0.5], np.float32), (4, 1))
    across = np.array([False, True, False, False])
    blended, right, pasted, below = cut(plain(4, kinds=kinds, shares=shares, pastes=pastes, across=across), 40, photos)
    assert apart(blended, 0.3 * photos[0] + 0.7 * photos[3]) < 0.6  # before the first comes the last, as it was cut
    np.testing.assert_array_equal(right[:, :20], photos[1][:, :20])
    np.testing.assert_array_equal(right[:, 20:], photos[0][:, 20:])
    np.testing.assert_array_equal(below[:20], photos[3][:20])
    np.testing.assert_array_equal(below[20:], photos[2][20:])
    small = cv2.resize(photos[1], (20, 20), interpolation=cv2.INTER_AREA)
    assert apart(pasted[21:39, 11:29], small[1:-1, 1:-1]) < 2
    np.testing.assert_array_equal(pasted[:20], photos[2][:20])
    np.testing.assert_array_equal(pasted[:, 31:], photos[2][:, 31:])


def test_plans_have_the_distributions_of_the_kept_crops():
    plan = CropPlan.draw(np.random.default_rng(0), 40_000, np.array([0.1, 0.9]))
    assert np.mean(plan.photos) == pytest.approx(0.9, abs=0.01)
    assert np.mean(plan.kinds != SINGLE) == pytest.approx(0.4, abs=0.01)
    assert np.mean(plan.mirrored) == pytest.approx(0.5, abs=0.01)
    assert np.mean(plan.angles != 0) == pytest.approx(0.3, abs=0.01)
    assert np.mean(plan.gray) == pytest.approx(0.05, abs=0.01)
    assert np.mean(plan.contrasts != 1) == pytest.approx(0.5, abs=0.01)
    center, half = plan.boxes[:, :2], plan.boxes[:, 2:]
    assert (np.abs(center) + half).max() <= 1 + 1e-6  # a crop that is not turned stays inside its photo
    assert half.prod(1).min() > 0.11
    assert (plan.pastes[:, :2] + plan.pastes[:, 2:]).max() <= 1 + 1e-6
    first, second = plan.sources.T
    assert ((second == -1) == (plan.kinds == SINGLE)).all()
    mixed = np.flatnonzero(second >= 0)
    assert (second[mixed] == first[mixed - 1]).all()


def test_frames_shrink_as_on_devices():
    crop = torch.from_numpy(pictures(1, 48)[0])
    frame = as_frames(crop.permute(2, 0, 1)[None].float(), 16)[0]
    wanted = cv2.resize(crop.numpy(), (16, 16), interpolation=cv2.INTER_AREA)
    assert frame.dtype == torch.uint8
    assert np.abs(frame.numpy().astype(int) - wanted).max() <= 1


def test_a_batch_depends_on_seed_and_step_alone():
    crops, again = made(), made()
    crops.batch(1, 7, 5)
    first, second = crops.batch(0, 3, 5), again.batch(0, 3, 5)
    for field in ("crops", "pooled", "language"):
        assert torch.equal(getattr(first, field), getattr(second, field)), field
    assert torch.equal(first.layers[0], second.layers[0])
    np.testing.assert_array_equal(first.sources, second.sources)
    for other in (crops.batch(0, 4, 5), crops.batch(1, 3, 5)):
        assert not torch.equal(first.crops, other.crops)
    assert crops.batch(0, 3, 5, size=8).crops.shape == (5, 8, 8, 3)


def test_the_teacher_looks_at_the_very_crops_and_its_features_are_standardized():
    crops = made()
    batch = crops.batch(0, 0, 6)
    plan = CropPlan.draw(np.random.default_rng([0, 0]), 6, crops.odds)
    seen = crops.teacher.see(cut_crops(crops.photos, plan, SIDE))
    np.testing.assert_allclose(batch.pooled, crops.standardized("pooled", seen.pooled.numpy()), atol=1e-5)
    np.testing.assert_allclose(batch.layers[0], crops.standardized("layer0", seen.layers[0].numpy()), atol=1e-5)
    many = crops.batch(5, 5, 400)
    assert many.pooled.mean(0).abs().max() < 0.3
    assert float(many.pooled.std()) == pytest.approx(1, abs=0.2)
    assert (crops.layers, crops.layer_shape(0), crops.width("language")) == (1, (16, 6), 4)


def test_what_is_alike_is_what_the_teacher_says_it_is():
    """Tokens that follow the teacher's language lose nothing, whatever its pooled features are."""
    config, crops = load_recipe("smoke").model, made(frame_size=32)
    batch, terms = crops.batch(0, 0, 6), []
    student = tower.VisionTower(config).eval()
    for alike in (("language",), ("pooled", "language")):
        heads = tower.TeacherHeads(config, [(16, 6)], 6, 4, alike)
        other = replace(batch, pooled=batch.pooled.flip(0))
        with torch.no_grad():
            terms.append([float(tower.tower_losses(heads, student, b)["relations"]) for b in (batch, other)])
    assert crops.alike == ("language",)
    (same_a, same_b), (a, b) = terms
    assert same_a == same_b
    assert a != b


def test_collections_are_drawn_by_weight():
    odds = odds_of([2, 4, 0, 1], [1.0, 3.0, 5.0, 0.0])
    np.testing.assert_allclose(odds, [0.125, 0.125, *[0.1875] * 4, 0])
    crops = made(collections=[pictures(2), pictures(4)], weights=[0.0, 1.0])
    assert crops.batch(0, 0, 50).sources[:, 0].min() == 2  # places count through, and the first collection is left out


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, picture in enumerate(pictures(12)):
        cv2.imwrite(str(folder / f"{i}@.png"), picture)
    return folder


def towers(run, photos, until="tower", steps=6, **options):
    """Weights after a short distillation with live crops on the CPU."""
    smoke = load_recipe("smoke")
    crops, stage = msgspec.structs.replace(smoke.crops, side=40), replace(smoke.tower, steps=steps)
    recipe = msgspec.structs.replace(smoke, crops=crops, tower=stage)
    options = {"teacher": TinyTeacher()} | options
    distill_student(
        run, recipe, media=find_media([photos]), live=True, until=until, accelerator=new_accelerator("cpu"), **options
    )
    return torch.load(run / "tower.pt", weights_only=True)["modules"]


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_a_seed_gives_the_same_student_and_resuming_too(tmp_path, photos, monkeypatch):
    whole = towers(tmp_path / "whole", photos)
    assert same(whole, towers(tmp_path / "again", photos))
    row = json.loads((tmp_path / "whole" / "tower.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 6
    assert row["per_second"] > 0
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["crops"] == "live"
    assert not list((tmp_path / "whole").rglob("crops-*"))  # nothing of them is kept

    class Killed(Exception):
        pass

    train, losses = tower.train_stage, tower.tower_losses
    calls = []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise Killed
        return losses(*arguments)

    monkeypatch.setattr(tower, "train_stage", lambda *a, **k: train(*a, checkpoint_every=2, **k))
    monkeypatch.setattr(tower, "tower_losses", dies)
    with pytest.raises(Killed):
        towers(tmp_path / "halves", photos)
    assert torch.load(tmp_path / "halves" / "tower.pt", weights_only=True)["step"] == 4
    assert same(whole, towers(tmp_path / "halves", photos))


def test_a_run_that_began_live_does_not_go_on_with_kept_crops(tmp_path, photos):
    smoke, media, at = load_recipe("smoke"), find_media([photos]), {"accelerator": new_accelerator("cpu")}
    distill_student(tmp_path / "run", smoke, teacher=TinyTeacher(), media=media, live=True, until="crops", **at)
    with pytest.raises(TrainingError, match="crops: live → cached"):
        distill_student(tmp_path / "run", smoke, teacher=TinyTeacher(), media=media, live=False, until="crops", **at)


def test_kept_crops_are_shared_out_by_weight_too(tmp_path, photos):
    more = tmp_path / "more"
    more.mkdir()
    for i, picture in enumerate(pictures(5, 44)):
        cv2.imwrite(str(more / f"{i}@.png"), picture)
    media = [*find_media([photos]), *find_media([more], collection="more")]
    smoke, at = load_recipe("smoke"), {"teacher": TinyTeacher(), "media": media, "live": False, "until": "crops"}
    crops = msgspec.structs.replace(smoke.crops, shards=4, count=4, weights={"more": 3.0})
    distill_student(
        tmp_path / "run", msgspec.structs.replace(smoke, crops=crops), accelerator=new_accelerator("cpu"), **at
    )
    kept = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "run" / "cache").glob("crops-*")}
    assert sorted(kept.values()) == [1, 3]
    none = msgspec.structs.replace(crops, weights={"": 0.0, "more": 0.0})
    with pytest.raises(ArgumentError, match="leaves out all collections"):
        distill_student(tmp_path / "none", msgspec.structs.replace(smoke, crops=none), **at)


def test_when_memory_runs_out_the_batch_halves_and_that_is_said(tmp_path, photos, capsys):
    class Large(TinyTeacher):
        def see(self, images):
            if len(images) > 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().see(images)

    teacher = Large()
    towers(tmp_path / "run", photos, teacher=teacher)
    said = capsys.readouterr().err
    assert "tiny: out of memory at 4 pictures, going on with 2" in said
    assert "tower: out of memory at step 0; the batch is 2 from here on" in said
    assert json.loads((tmp_path / "run" / "tower.jsonl").read_text().splitlines()[-1])["batch"] == 2
    assert set(teacher.batches[-6:]) == {2}


def test_a_teacher_for_which_nothing_is_left_is_named():
    class Huge(TinyTeacher):
        def see(self, images):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingError, match="tiny cannot look at a single picture beside 8 photos"):
        made(teacher=Huge())


def test_photos_that_do_not_fit_are_told_in_pixels(monkeypatch):
    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    teacher = TinyTeacher()
    monkeypatch.setattr(live.torch, "empty", full)
    with pytest.raises(TrainingError, match=r"8 photos of 40 × 40 pixels .*crops\.side"):
        made(teacher=teacher)


def test_a_teacher_that_gives_no_numbers_stops_the_run(tmp_path, photos):
    class Broken(TinyTeacher):
        def see(self, images):
            return super().see(images if len(self.batches) < 10 else images * float("nan"))

    with pytest.raises(TrainingError, match="loss is not finite at step 2 of stage tower"):
        towers(tmp_path / "run", photos, teacher=Broken())


def test_what_follows_the_tower_takes_live_crops_too(tmp_path, photos):
    towers(tmp_path / "run", photos, until="clips", steps=2)
    rows = [json.loads(line) for line in (tmp_path / "run" / "clips.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2


def test_who_can_look_inside_the_step(capsys):
    cuda = torch.device("cuda")
    assert choose_live(TinyTeacher(), cuda, None)
    assert not choose_live(TinyTeacher(), CPU, None)  # what is kept is trained on more than once
    assert choose_live(TinyTeacher(), CPU, True)
    assert not choose_live(TinyTeacher(), cuda, False)
    assert not capsys.readouterr().err
    assert not choose_live(ColorTeacher(), cuda, None)
    assert "colours cannot look inside the training's step, so crops are cut on the CPU" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match=r"colours cannot look inside.*leave --crops live out"):
        choose_live(ColorTeacher(), cuda, True)


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ArgumentError, match="built for CPUs alone: install its CUDA build"):
        new_accelerator("cuda")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(ArgumentError, match=r"built for CUDA 12\.8 and sees no GPU.*--device cpu"):
        new_accelerator("cuda")
    with pytest.raises(ArgumentError, match="Did you mean 'cuda'"):
        new_accelerator("cudo")
    assert new_accelerator("cpu").device == CPU


def test_the_command_takes_shards_and_a_classifier(tmp_path):
    """The whole way to the tower: a Hugging Face classifier by folder, photos out of shards, one of them damaged."""
    pytest.importorskip("transformers", reason="the workstation half is not installed")
    shards = tmp_path / "shards"
    shards.mkdir()
    write_shard(shards / "shard_00.npz", [cv2.imencode(".webp", p)[1].ravel() for p in pictures(4)])
    (shards / "shard_01.npz").write_bytes(b"damaged")
    arguments = [
        "--teacher", str(make_vit(tmp_path / "vit")), "--videos", str(shards), "--recipe", "smoke",
        "--out", str(tmp_path / "run"), "--device", "cpu", "--crops", "live", "--until", "tower",
    ]  # fmt: skip
    result = CliRunner().invoke(distill, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "shard_01.npz is damaged" in result.stderr
    assert torch.load(tmp_path / "run" / "tower.pt", weights_only=True)["step"] == 2


def test_a_plan_draws_all_of_its_parts():
    plans = [CropPlan.draw(np.random.default_rng(seed), 200, np.full(9, 1 / 9)) for seed in (0, 1)]
    for field in fields(CropPlan):
        a, b = (getattr(p, field.name) for p in plans)
        assert not np.array_equal(a, b), field.name


def test_the_recipe_wide_is_the_tower_that_was_made_with_it():
    recipe = load_recipe("wide")
    assert recipe.model.tower_widths == (32, 64, 128, 256)
    assert recipe.model.tower_blocks == (0, 1, 2)
    assert recipe.tower.steps * recipe.tower.batch > 5e6
    assert recipe.crops.weight("caltech101") > recipe.crops.weight("photos of my own") == 1
