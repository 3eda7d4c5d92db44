"""A vision-language model as it is: a small SmolVLM2 of the real class, from checkpoint to a bundle that ranks."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")
pytest.importorskip("transformers", reason="the workstation half is not installed")
pytest.importorskip("num2words", reason="the workstation half is not installed")

from linkedout_export.build import calibration_feeds  # noqa: E402
from linkedout_export.vlm import load_vlm, write_vlm_bundle  # noqa: E402
from linkedout_export.vlm.bundle import agreement  # noqa: E402
from linkedout_export.vlm.fit import fit  # noqa: E402
from linkedout_export.vlm.quantize import METHODS, onnx_int4, onnx_int8, openvino_compressed  # noqa: E402
from linkedout_quant.model import dequantize  # noqa: E402
from linkedout_quant.teachers import TeacherError, load_teacher  # noqa: E402
from vlm_checkpoints import make_internvl, make_smolvlm  # noqa: E402

from linkedout_edge import Event, Recommender, Video  # noqa: E402
from linkedout_edge.errors import ArgumentError  # noqa: E402

FRAMES, CELLS = 3, 4


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return make_smolvlm(tmp_path_factory.mktemp("smolvlm"), layers=2)


@pytest.fixture(scope="session")
def student(checkpoint):
    return load_vlm(checkpoint, frames=FRAMES)


@pytest.fixture(scope="session")
def feeds(student):
    return calibration_feeds(student.config, None, 24)


@pytest.fixture(scope="session")
def bundle(student, feeds, tmp_path_factory):
    out = tmp_path_factory.mktemp("vlm") / "bundle"
    write_vlm_bundle(student, out, feeds, precisions=("int8", "int4", "fp32"))
    return out


@pytest.fixture(scope="session")
def exact(bundle):
    onnx = pytest.importorskip("onnx")
    return onnx.load(bundle / "onnx" / "fp32" / "encoder.onnx")


def clip(seed, frames=FRAMES, side=32):
    return np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)


def inputs(student, frames, words=()):
    c = student.config
    title = torch.zeros(1, c.title_tokens, dtype=torch.int32)
    title[0, : len(words)] = torch.tensor(words, dtype=torch.int32)
    shown = torch.zeros(1, c.frames, 32, 32, 3, dtype=torch.uint8)
    shown[0, : len(frames)] = torch.from_numpy(frames)
    return (
        shown,
        torch.arange(c.frames)[None] < len(frames),
        title,
        torch.arange(c.title_tokens)[None] < len(words),
    )


@pytest.mark.parametrize(("frames", "title"), [(FRAMES, None), (1, None), (2, "a cat, on 2 mats")])
def test_it_reads_a_clip_as_the_checkpoint_does(checkpoint, student, frames, title):
    """Every hidden state at visual and prompt positions, beside the library's own forward pass."""
    teacher = load_teacher(checkpoint, device="cpu")
    shown = clip(1, frames)
    words = teacher._processor.tokenizer.encode(title, add_special_tokens=False) if title else []
    with torch.no_grad():
        got = student.encoder.states(*inputs(student, shown, words))
        given = teacher._processor([shown], [title], teacher.prompt)
        want = teacher._net(**given, output_hidden_states=True).hidden_states
    visual = given["input_ids"][0] == teacher._visual_ids[0]
    assert len(got) == len(want) == 3
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours[0, : frames * CELLS], theirs[0, visual], atol=2e-4)
        asked = student.config.prompt_tokens
        np.testing.assert_allclose(ours[0, -asked:], theirs[0, -asked:], atol=2e-4)


def test_absent_frames_and_words_do_not_count(student):
    shown, frame_mask, title, title_mask = inputs(student, clip(1, 2))
    with torch.no_grad():
        want = student.encoder(shown, frame_mask, title, title_mask)
        shown[:, 2:] = 255
        got = student.encoder(shown, frame_mask, title + 7, title_mask)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_sizes_fall_with_the_bits_and_agreement_is_measured(bundle):
    from linkedout_edge.bundle.manifest import parse_manifest

    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    size = {p: e.files["encoder"].bytes for p, e in manifest.precisions.items()}
    assert size["int4"] < size["int8"] < 0.45 * size["fp32"]
    told = {p: e.agreement for p, e in manifest.precisions.items()}
    assert told["fp32"]["token_cosine"] == 1
    assert 0.95 < told["int8"]["token_cosine"] < 1
    assert 0.7 < told["int4"]["token_cosine"] < told["int8"]["token_cosine"]
    assert manifest.preprocessing.mean == (127.5, 127.5, 127.5)
    assert manifest.prompt == "In one sentence: what is shown, how does it look and how does it move?"


def test_agreement_notices_other_tokens():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(20, 30))
    assert agreement(tokens, tokens) == {"token_cosine": 1.0, "kendall_tau": 1.0, "top10_overlap": 1.0}
    assert agreement(tokens, rng.normal(size=(20, 30)))["kendall_tau"] < 0.3


def take(kind, number):
    """One of three looks, each take with a little noise of its own."""
    base = np.random.default_rng(3).integers(0, 256, (3, 1, 8, 8, 3)).repeat(4, 2).repeat(4, 3).repeat(FRAMES, 1)
    noise = np.random.default_rng(number).integers(-8, 8, base[0].shape)
    return Video(frames=(base[kind] + noise).clip(0, 255).astype(np.uint8), id=f"{kind} {number}")


@pytest.mark.parametrize("precision", ["int8", "int4", "fp32"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_bundle_ranks(bundle, precision, backend):
    """Who watched two takes of one clip is shown a third before clips of other looks, with and without a title."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    with Recommender.load(bundle, precision=precision, backend=backend) as rec:
        ranking = rec.rank([take(0, 1), take(0, 2)], [take(1, 3), take(0, 4), take(2, 5)])
        assert ranking[0].id == "0 4"
        assert not ranking.failed
        titled = Video(frames=take(1, 6).frames, id="t", title="A red ball, 2 dogs")
        assert rec.rank([take(0, 1)], [titled])[0].id == "t"


def test_a_dislike_pushes_away(bundle):
    with Recommender.load(bundle, precision="fp32") as rec:
        candidates = [take(0, 4), take(1, 5)]
        assert rec.rank([Event(take(0, 1), liked=True)], candidates)[0].id == "0 4"
        assert rec.rank([Event(take(0, 1), liked=False)], candidates)[0].id == "1 5"


def test_the_user_model_is_of_the_clips_that_fitted(bundle, exact, feeds):
    from linkedout_export.sensitivity import onnx_runner, tokens_of
    from linkedout_export.user_model import fit_user_model

    from linkedout_edge.bundle.manifest import parse_manifest

    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    assert manifest.user_model == fit_user_model(tokens_of(onnx_runner(exact), feeds))
    assert manifest.parity["encoder"] < 1.5


@pytest.mark.parametrize("method", METHODS)
def test_every_4_bit_method_is_close_and_small(exact, feeds, method):
    import onnxruntime as ort

    onnx = pytest.importorskip("onnx")
    small = onnx_int4(exact, method, feeds[:8])
    onnx.checker.check_model(small)
    assert small.ByteSize() < 0.35 * exact.ByteSize()

    def tokens(model):
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.concatenate(
            [dequantize(*map(torch.from_numpy, session.run(None, f))).flatten(1).numpy() for f in feeds[:8]]
        )

    assert agreement(tokens(exact), tokens(small))["token_cosine"] > 0.6


def test_openvino_compresses_the_same_graph(exact, feeds):
    ov = pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    core = ov.Core()
    exactly = {"INFERENCE_PRECISION_HINT": "f32"}

    def tokens(model):
        run = core.compile_model(model, "CPU", exactly)
        outputs = [list(run(f).values()) for f in feeds[:8]]
        return np.concatenate([dequantize(torch.tensor(t), torch.tensor(s)).flatten(1).numpy() for t, s in outputs])

    want = tokens(core.read_model(exact.SerializeToString()))
    for bits, floor in ((8, 0.95), (4, 0.6)):
        assert floor < agreement(want, tokens(openvino_compressed(exact, bits, feeds[:8])))["token_cosine"] < 0.9999


@pytest.mark.parametrize("load_in", ["8bit", "4bit"])
def test_in_torch_through_bitsandbytes(checkpoint, student, load_in):
    pytest.importorskip("bitsandbytes")
    small = load_vlm(checkpoint, frames=FRAMES, load_in=load_in)
    given = inputs(student, clip(1))
    with torch.no_grad():
        want, got = (s.encoder.states(*given)[-1].flatten() for s in (student, small))
    assert 0.8 < torch.nn.functional.cosine_similarity(want, got, 0) < 0.99999
    with pytest.raises(ArgumentError, match="float32"):
        write_vlm_bundle(small, checkpoint / "never", [])


def test_bad_input_is_refused(student, feeds, exact, tmp_path):
    with pytest.raises(TeacherError, match="family for an encoder graph 'internvl'"):
        load_vlm(make_internvl(tmp_path / "m"))
    with pytest.raises(TeacherError, match="no layer 9"):
        load_vlm(make_smolvlm(tmp_path / "s"), layers=[9])
    with pytest.raises(ArgumentError, match="at least 1"):
        load_vlm(tmp_path / "s", frames=0)
    with pytest.raises(ArgumentError, match="too few"):
        fit(student, feeds[:3])
    with pytest.raises(ArgumentError, match="Did you mean 'hqq'"):
        onnx_int4(exact, "hq")
    with pytest.raises(ArgumentError, match="calibration data"):
        onnx_int4(exact, "gptq")
    with pytest.raises(ArgumentError, match="unknown precision 'int3'"):
        write_vlm_bundle(student, tmp_path / "b", feeds, precisions=["int3"])
    assert onnx_int8(exact).ByteSize() < exact.ByteSize()


@pytest.mark.slow
def test_the_command(checkpoint, tmp_path):
    from click.testing import CliRunner
    from linkedout_export.cli import export

    arguments = [str(checkpoint), "--via", "torch", "--frames", "2", "--precision", "int4", "--clips", "8"]
    result = CliRunner().invoke(export, [*arguments, "--out", str(tmp_path / "b")])
    assert result.exit_code == 0, result.output
    assert "int4" in result.output
    with Recommender.load(tmp_path / "b") as rec:
        assert len(rec.rank([Video(frames=clip(1))], [Video(frames=clip(2))])) == 1
