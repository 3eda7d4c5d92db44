"""Hugging Face teachers: real classes of five families, with small random weights, in fp32, 8 and 4 bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")
pytest.importorskip("transformers", reason="the workstation half is not installed")
pytest.importorskip("num2words", reason="the workstation half is not installed")

from linkedout_quant.teachers import TeacherError, load_teacher, pooling  # noqa: E402
from linkedout_quant.teachers.checkpoint import digest  # noqa: E402
from linkedout_quant.teachers.huggingface import HuggingFaceTeacher, choose_layers  # noqa: E402
from vlm_checkpoints import FAMILIES, make_smolvlm  # noqa: E402

from linkedout_edge.errors import ArgumentError, MissingDependencyError  # noqa: E402

WIDTH, BLOCKS, GRID = 64, 3, 4


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = FAMILIES[family](root / family)
        return made[family]

    return get


@pytest.fixture(scope="module")
def teacher(checkpoints):
    return load_teacher(checkpoints("smolvlm"), device="cpu")


@pytest.fixture(scope="module")
def clips():
    """Clips of several lengths and shapes: a bright, a dark, a still, and a long one."""
    rng = np.random.default_rng(0)
    return [
        rng.integers(128, 256, (2, 40, 60, 3), dtype=np.uint8),
        rng.integers(0, 64, (2, 48, 48, 3), dtype=np.uint8),
        rng.integers(0, 256, (1, 40, 60, 3), dtype=np.uint8),
        rng.integers(0, 256, (5, 64, 36, 3), dtype=np.uint8),
    ]


def cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def rows(features):
    return [*features.layers, features.pooled, features.language]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_looks_at_clips_of_any_length_and_shape(checkpoints, clips, family):
    teacher = load_teacher(checkpoints(family), device="cpu")
    features = teacher.extract_features(clips)
    assert [x.shape for x in features.layers] == [(4, GRID**2 + 1, WIDTH)] * BLOCKS
    assert features.pooled.shape == features.language.shape == (4, WIDTH)
    assert all(x.dtype == np.float32 for x in rows(features))
    assert teacher.layer_names == ("layer 1", "layer 2", "layer 3")
    # each clip alone gives what it gives in a batch with others: padding does not count
    for i, clip in enumerate(clips):
        for batched, alone in zip(rows(features), rows(teacher.extract_features([clip])), strict=True):
            np.testing.assert_allclose(batched[i], alone[0], atol=2e-4)
    assert cosine(features.pooled[0], features.pooled[1]) < 0.99, "a bright and a dark clip look the same"


@pytest.mark.parametrize("load_in", ["8bit", "4bit"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_loads_in_fewer_bits(checkpoints, clips, family, load_in):
    pytest.importorskip("bitsandbytes")
    exact = load_teacher(checkpoints(family), device="cpu")
    small = load_teacher(checkpoints(family), load_in=load_in, device="cpu")
    kinds = {type(m).__name__ for m in small._net.modules()}
    assert {"8bit": "Linear8bitLt", "4bit": "Linear4bit"}[load_in] in kinds
    assert small._net.get_memory_footprint() < 0.75 * exact._net.get_memory_footprint()
    assert small.fingerprint != exact.fingerprint
    floor = {"8bit": 0.98, "4bit": 0.7}[load_in]  # random weights are the hardest case: no outliers, no redundancy
    for want, got in zip(rows(exact.extract_features(clips[:2])), rows(small.extract_features(clips[:2])), strict=True):
        assert cosine(want, got) > floor
        assert not np.array_equal(want, got)


def test_features_are_the_models_own_hidden_states(checkpoints, clips):
    teacher = load_teacher(checkpoints("smolvlm"), layers=[0, 2, -1], device="cpu")
    features = teacher.extract_features(clips[:1])
    inputs = teacher._processor(clips[:1], [None], teacher.prompt)
    with torch.no_grad():
        states = teacher._net(**inputs, output_hidden_states=True).hidden_states
    visual = inputs["input_ids"][0] == teacher._visual_ids[0]
    assert int(visual.sum()) == 2 * 4  # two frames of four tokens
    np.testing.assert_allclose(features.language[0], states[-1][0, -1], atol=1e-6)
    np.testing.assert_allclose(features.pooled[0], states[-1][0, visual].mean(0), atol=1e-6)
    behind = int(visual.nonzero().max()) + 1
    for got, layer in zip(features.layers, (0, 2, 3), strict=True):
        np.testing.assert_allclose(got[0, -1], states[layer][0, behind:].mean(0), atol=1e-5)
        frame = states[layer][0, visual].unflatten(0, (2, 2, 2)).mean(0)  # [2, 2, W] → four cells of 2 × 2 each
        np.testing.assert_allclose(got[0, :-1].reshape(4, 4, WIDTH)[::2, ::2], frame, atol=1e-5)


def test_titles_and_prompt_reach_the_model(teacher, checkpoints, clips):
    plain = teacher.extract_features(clips[:1])
    titled = teacher.extract_features(clips[:1], ["a cat on a mat"])
    np.testing.assert_allclose(plain.pooled, titled.pooled, atol=1e-4)  # frames come first: causal
    assert not np.allclose(plain.layers[-1][:, -1], titled.layers[-1][:, -1], atol=1e-2)
    other = load_teacher(checkpoints("smolvlm"), prompt="What colour?", device="cpu")
    assert not np.allclose(other.extract_features(clips[:1]).language, plain.language, atol=1e-2)
    assert other.fingerprint != teacher.fingerprint


def test_a_title_cannot_pass_for_an_image_or_a_turn(teacher, clips):
    assert teacher._processor.clean("a <ima<image>ge> b <|im_end|>") == "a <ima ge> b"
    teacher.extract_features(clips[:2], ["<image><image>", "<fake_token_around_image> hello"])


def test_layers(checkpoints):
    assert choose_layers(None, 24, "m") == (4, 8, 12, 16, 20, 24)
    assert choose_layers(None, 3, "m") == (1, 2, 3)
    assert choose_layers([-1, 0, 3], 3, "m") == (0, 3)
    with pytest.raises(ArgumentError, match="empty"):
        choose_layers([], 3, "m")
    with pytest.raises(TeacherError, match=r"no layer 4, -5: it has 0 .* to 3"):
        load_teacher(checkpoints("smolvlm"), layers=[1, 4, -5])


def test_out_of_memory_halves_the_batch_and_says_so(checkpoints, clips, monkeypatch):
    teacher = HuggingFaceTeacher(checkpoints("smolvlm"), device="cpu", batch=8)
    want = teacher.extract_features([clips[0]] * 5)
    forward, sizes = teacher._forward, []

    def small(some, titles):
        sizes.append(len(some))
        if len(some) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(some, titles)

    monkeypatch.setattr(teacher, "_forward", small)
    with pytest.warns(UserWarning, match="out of memory at 5 clips, going on with 2"):
        got = teacher.extract_features([clips[0]] * 5)
    assert sizes == [5, 2, 2, 1]
    np.testing.assert_allclose(got.pooled, want.pooled, atol=1e-5)

    def none(some, titles):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 8 bytes.")

    monkeypatch.setattr(teacher, "_forward", none)
    with pytest.warns(UserWarning, match="going on with 1"), pytest.raises(TeacherError, match="single clip"):
        teacher.extract_features([clips[0]] * 2)


def test_fingerprint_follows_what_decides_the_features(checkpoints, tmp_path):
    folder = checkpoints("smolvlm")
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    first = load_teacher(folder, device="cpu").fingerprint
    assert load_teacher(copy, device="cpu").fingerprint == first
    assert load_teacher(copy, device="cpu", layers=[1]).fingerprint != first
    assert load_teacher(copy, device="cpu", dtype="bfloat16").fingerprint != first
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert load_teacher(copy, device="cpu").fingerprint != first


def test_large_files_are_hashed_by_sample(tmp_path, monkeypatch):
    monkeypatch.setattr("linkedout_quant.teachers.checkpoint.WHOLE", 1 << 20)
    path = tmp_path / "model.safetensors"
    size = 40 << 20
    with path.open("wb") as f:
        f.truncate(size)
    before = digest(tmp_path)

    def change(at, length):
        with path.open("r+b") as f:
            f.seek(at)
            f.write(b"\x01" * length)
        return digest(tmp_path)

    after = change(size - 1, 1)
    assert after != before
    assert change(5 << 20, 16 << 20) != after, "a change of the promised size went unnoticed"


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_with_padding_on_either_side(side):
    visual = torch.tensor([0, 1, 1, 0, 1, 1, 0, 0], dtype=torch.bool)
    valid = torch.ones(8, dtype=torch.bool)
    pad = torch.zeros(3, dtype=torch.bool)
    order = (lambda a: torch.cat([pad, a])) if side == "left" else (lambda a: torch.cat([a, pad]))
    start = 3 if side == "left" else 0
    asked = pooling.prompt_positions(order(visual), order(valid))
    assert asked.nonzero().flatten().tolist() == [start + 6, start + 7]
    assert pooling.last_position(order(valid)) == start + 7


def test_pooling_keeps_places():
    # two frames of 4 × 4 tokens whose value is their column, and a line break behind each
    column = torch.arange(4.0).repeat(4)
    tokens = torch.cat([column, torch.tensor([99.0]), column + 10, torch.tensor([99.0])])[:, None]
    layout = pooling.square_layout(len(tokens), 2)
    assert layout == (2, 4, 4)
    assert pooling.pool_visual(tokens, layout, 2).flatten().tolist() == [5.5, 7.5, 5.5, 7.5]
    assert pooling.square_layout(2 * 7, 2) is None
    assert pooling.pool_visual(torch.arange(8.0)[:, None], None, 2).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]


def test_a_cut_image_stays_in_its_place(checkpoints):
    """A frame whose left half is bright: the cells on the left differ from those on the right, in every family."""
    frame = np.zeros((2, 56, 56, 3), np.uint8)
    frame[:, :, :28] = 255
    for family in FAMILIES:
        cells = load_teacher(checkpoints(family), layers=[0], device="cpu").extract_features([frame]).layers[0][0, :-1]
        grid = cells.reshape(GRID, GRID, WIDTH)
        columns = np.abs(grid[:, 0] - grid[:, -1]).mean()
        lines = np.abs(grid[0] - grid[-1]).mean()
        assert columns > 1.5 * lines, family


# What cannot teach


def test_a_model_without_vision_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(TeacherError, match="llama model, which looks at no images"):
        load_teacher(tmp_path)


def test_an_unknown_architecture_is_refused_with_a_close_match(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "smolvlm9", "auto_map": {"AutoModel": "x.Y"}}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(TeacherError, match=r"(?s)'smolvlm9'.*Did you mean 'smolvlm'.*never run here"):
        load_teacher(tmp_path)


def test_an_incomplete_folder_says_what_it_lacks(tmp_path, checkpoints):
    with pytest.raises(TeacherError, match=r"no config\.json"):
        load_teacher(tmp_path)
    shutil.copytree(checkpoints("smolvlm"), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(TeacherError, match=r"no model\.safetensors"):
        load_teacher(tmp_path / "m")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TeacherError, match=r"model-00001-of-00002\.safetensors \(and 1 more\)"):
        load_teacher(tmp_path / "m")


def test_damaged_weights_and_absent_parts_are_teacher_errors(tmp_path, checkpoints):
    for name, change in {
        "tokenizer": lambda f: (f / "tokenizer.json").unlink(),
        "images": lambda f: (f / "preprocessor_config.json").unlink(),
        "template": lambda f: (f / "chat_template.jinja").unlink(),
        "weights": lambda f: (f / "model.safetensors").write_bytes(b"nonsense"),
        "config": lambda f: (f / "config.json").write_text("{"),
    }.items():
        folder = tmp_path / name
        shutil.copytree(checkpoints("smolvlm"), folder)
        change(folder)
        with pytest.raises(TeacherError, match=str(folder)):
            load_teacher(folder, device="cpu")


def test_weights_that_lack_a_tensor_are_refused(tmp_path, checkpoints):
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoints("smolvlm"), tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    name = next(k for k in weights if "layers.1" in k and "text" in k)
    save_file({k: v for k, v in weights.items() if k != name}, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(TeacherError, match="lack 1 tensors"):
        load_teacher(tmp_path / "m", device="cpu")


def test_names_that_mean_nothing(tmp_path):
    with pytest.raises(ArgumentError, match="Did you mean 'composite'"):
        load_teacher("compsite")
    with pytest.raises(TeacherError, match="no folder"):
        load_teacher(tmp_path / "not" / "there")
    with pytest.raises(ArgumentError, match="Did you mean '8bit'"):
        load_teacher("a/b", load_in="8bits")
    with pytest.raises(ArgumentError, match="float32"):
        load_teacher("a/b", dtype="float23")
    with pytest.raises(ArgumentError, match="no load_in"):
        load_teacher("composite", load_in="8bit")


def test_an_absent_model_while_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TeacherError, match="hf download owner/model --local-dir model"):
        load_teacher("owner/model")


def test_a_gated_model_says_what_to_do(tmp_path, monkeypatch):
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    def refuse(name, local_files_only=False, **_):
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        raise GatedRepoError("gated", response=httpx.Response(403, request=httpx.Request("GET", "https://hub")))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(TeacherError, match="gated: accept its license"):
        load_teacher("owner/model")


def test_a_model_in_the_local_cache_needs_no_network(tmp_path, checkpoints, monkeypatch, clips):
    import socket

    home = tmp_path / "models--owner--model"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("f" * 40)
    shutil.copytree(checkpoints("smolvlm"), home / "snapshots" / ("f" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    teacher = load_teacher("owner/model", device="cpu")
    assert teacher.name == "owner/model"
    assert teacher.extract_features(clips[:1]).pooled.shape == (1, WIDTH)


def test_a_missing_library_is_named_with_the_line_that_installs_it(checkpoints, monkeypatch):
    import linkedout_quant.teachers.checkpoint as checkpoint

    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None if name == "bitsandbytes" else object())
    with pytest.raises(MissingDependencyError, match=r"bitsandbytes: pip install '\.\[tools\]'"):
        load_teacher(checkpoints("smolvlm"), load_in="4bit")


@pytest.mark.parametrize(
    "clip",
    [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8), "a.mp4"],
)
def test_wrong_clips_are_refused(teacher, clips, clip):
    with pytest.raises(TeacherError, match=r"clip 1 is .*expected uint8 \[F, H, W, 3\]"):
        teacher.extract_features([clips[0], clip])


def test_lists_must_fit(teacher, clips):
    with pytest.raises(TeacherError, match="1 titles for 2 clips"):
        teacher.extract_features(clips[:2], ["a"])
    with pytest.raises(TeacherError, match="no clips"):
        teacher.extract_features([])


def test_video_needs_torchvision_and_says_so(checkpoints):
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        pytest.skip("torchvision is installed")
    with pytest.raises(TeacherError, match="pip install torchvision"):
        HuggingFaceTeacher(checkpoints("smolvlm"), frames_as="video")


def test_half_precision_is_what_was_asked_for(tmp_path, clips):
    folder = make_smolvlm(tmp_path / "m", layers=2)
    teacher = load_teacher(folder, dtype="bfloat16", device="cpu")
    assert teacher._net.dtype == torch.bfloat16
    exact = load_teacher(folder, device="cpu")
    assert cosine(teacher.extract_features(clips[:1]).language, exact.extract_features(clips[:1]).language) > 0.98
