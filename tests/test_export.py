"""Graph, user model, bundle writer: what leaves the workstation is what torch computes, in the pinned formats."""

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")
onnx = pytest.importorskip("onnx", reason="the workstation half is not installed")

from linkedout_export.graphs import encoder_example, export_encoder, parity  # noqa: E402
from linkedout_export.quantization import quantize_int4, quantize_int8  # noqa: E402
from linkedout_export.user_model import fit_user_model  # noqa: E402
from linkedout_export.writer import token_space, write_manifest  # noqa: E402
from linkedout_quant.model import Student, dequantize  # noqa: E402

from linkedout_edge.backends.base import INPUTS  # noqa: E402
from linkedout_edge.bundle.manifest import parse_manifest  # noqa: E402
from linkedout_edge.config import ModelConfig  # noqa: E402
from linkedout_edge.errors import ArgumentError, BackendError  # noqa: E402
from linkedout_edge.rank.taste import Space, fit, noise, wanted  # noqa: E402


@pytest.fixture(scope="module")
def exported():
    torch.manual_seed(0)
    student = Student(ModelConfig.tiny()).eval()
    return student, export_encoder(student.encoder)


@pytest.fixture(scope="module")
def feeds():
    config = ModelConfig.tiny()
    return [dict(zip(INPUTS, (x.numpy() for x in encoder_example(config, 2, i)), strict=True)) for i in range(8)]


def run(model, feed):
    import onnxruntime as ort

    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)


def test_the_graph_equals_torch_at_other_batch_sizes(exported):
    student, graph = exported
    assert parity(student.encoder, graph, batch=3) < 1.01  # one int8 step: a value on the edge may round the other way


def test_a_graph_that_differs_from_torch_is_refused(exported):
    student, graph = exported
    other = Student(student.config).eval()
    with pytest.raises(BackendError, match=r"differs from torch by .* int8 steps"):
        parity(other.encoder, graph)


def test_formats_are_pinned_and_say_nothing_of_the_machine(exported):
    model = exported[1]
    assert model.ir_version == 10
    assert {(o.domain, o.version) for o in model.opset_import} == {("", 18)}
    assert not model.metadata_props
    text = model.SerializeToString()
    assert b"site-packages" not in text
    assert b".py" not in text


def test_the_batch_is_the_dynamic_dimension(exported):
    ports = [*exported[1].graph.input, *exported[1].graph.output]
    dims = {p.name: [d.dim_param or d.dim_value for d in p.type.tensor_type.shape.dim] for p in ports}
    assert dims == {
        "frames": ["B", 8, 32, 32, 3],
        "frame_mask": ["B", 8],
        "title_ids": ["B", 6],
        "title_mask": ["B", 6],
        "tokens": ["B", 3, 2, 16],
        "scales": ["B", 3, 2],
    }


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_int4])
def test_quantized_encoder_is_smaller_and_close(exported, feeds, quantize):
    graph = exported[1]
    small = quantize(graph, feeds)
    onnx.checker.check_model(small)
    assert small.ByteSize() < 0.6 * graph.ByteSize()
    want, got = (dequantize(*map(torch.from_numpy, run(g, feeds[0]))) for g in (graph, small))
    assert torch.nn.functional.cosine_similarity(want.flatten(1), got.flatten(1)).min() > 0.95


def test_too_little_calibration_is_refused(exported, feeds):
    with pytest.raises(ArgumentError, match="too few"):
        quantize_int8(exported[1], feeds[:3])


def test_token_space_follows_weights_and_survives_the_master(exported):
    student = exported[0]
    before = token_space(student)
    other = Student(student.config)
    other.load_state_dict(
        {k: v.half().float() if v.is_floating_point() else v for k, v in student.state_dict().items()}
    )
    assert token_space(other) == before
    with torch.no_grad():
        next(other.encoder.parameters()).add_(0.1)
    assert token_space(other) != before


def test_a_manifest_is_read_as_it_was_written_with_its_numbers_in_lines(tiny_bundle, tmp_path):
    manifest = msgspec.structs.replace(
        parse_manifest((tiny_bundle / "manifest.json").read_bytes()), prompt='what is  [ 1,\n 2 ] "here"?'
    )
    write_manifest(tmp_path, manifest)
    text = (tmp_path / "manifest.json").read_text()
    assert parse_manifest(text.encode()) == manifest
    assert '"taps": [0, 2, 3],' in text
    assert len(text.splitlines()) < 100


def clips(shape=(40, 3, 8), seed=0):
    """Tokens of clips in four kinds, all of them off centre."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(4, *shape[1:]))
    return kinds[np.arange(shape[0]) % 4] + 0.5 * rng.normal(size=shape) + 7.0


def test_a_user_model_is_mean_and_size_of_the_clips():
    tokens = clips()
    model = fit_user_model(tokens)
    np.testing.assert_allclose(model.mean, tokens.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.size, ((tokens - tokens.mean(0)) ** 2).sum(-1).mean(0), rtol=1e-5)
    assert model == fit_user_model(tokens.astype(np.float64))  # the same simulated users every time


def test_scaled_scores_have_about_unit_deviation_whatever_the_tokens_are():
    seen = [0, 4, 8, 12, 1, 2, 3, 5]  # four of one kind to the end, four others skipped
    found = []
    for size in (1.0, 1e-3, 1e3):
        tokens = clips() * size
        model = fit_user_model(tokens)
        space = Space(np.array(model.mean), np.array(model.size), np.full(3, 1 / 3))
        taste = fit(tokens[seen], wanted(np.repeat([1.0, 0.1], 4)), noise(np.zeros(8)), space)
        found.append(taste.score(tokens) * model.score_scale)
    assert 0.5 < found[0].std() < 2
    np.testing.assert_allclose(found[1:], [found[0]] * 2, atol=1e-3)


def test_odd_clips_give_a_user_model_that_can_be_read(tiny_bundle):
    manifest = parse_manifest((tiny_bundle / "manifest.json").read_bytes())
    for tokens in (np.zeros((8, 3, 32)), np.repeat(clips((1, 3, 32)), 9, 0)):
        odd = msgspec.structs.replace(manifest, user_model=fit_user_model(tokens))
        assert parse_manifest(msgspec.json.encode(odd)) == odd
    with pytest.raises(ArgumentError, match="7 clips are too few"):
        fit_user_model(np.zeros((7, 3, 32)))


def test_tiny_bundle_has_a_valid_manifest(tiny_bundle):
    manifest = parse_manifest((tiny_bundle / "manifest.json").read_bytes())
    assert list(manifest.precisions) == ["int8", "fp32"]
    assert manifest.layer_names == ["input", "layer 2", "layer 3"]
    assert np.shape(manifest.user_model.mean) == (3, 32)
    for precision in manifest.precisions.values():
        for entry in precision.files.values():
            assert (tiny_bundle / entry.path).stat().st_size == entry.bytes
