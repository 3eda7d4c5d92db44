"""Graphs and bundle writer: what leaves the workstation is what torch computes, in the pinned formats."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")
onnx = pytest.importorskip("onnx", reason="the workstation half is not installed")

from linkedout_export.graphs import encoder_example, export_graphs, parity, user_example  # noqa: E402
from linkedout_export.quantisation import quantise_int4, quantise_int8  # noqa: E402
from linkedout_export.writer import token_space  # noqa: E402
from linkedout_quant.model import Student, dequantise, scorer_reference  # noqa: E402

from linkedout_edge.bundle.manifest import parse_manifest  # noqa: E402
from linkedout_edge.config import ModelConfig  # noqa: E402
from linkedout_edge.errors import ArgumentError  # noqa: E402

NAMES = ("frames", "frame_mask", "title_ids", "title_mask")


@pytest.fixture(scope="module")
def exported():
    torch.manual_seed(0)
    student = Student(ModelConfig.tiny()).eval()
    return student, export_graphs(student)


@pytest.fixture(scope="module")
def feeds():
    config = ModelConfig.tiny()
    return [dict(zip(NAMES, (x.numpy() for x in encoder_example(config, 2, i)), strict=True)) for i in range(8)]


def run(model, feed):
    import onnxruntime as ort

    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)


def test_graphs_equal_torch_at_other_batch_sizes(exported):
    student, graphs = exported
    worst = parity(student, graphs, batch=3)
    assert worst["encoder"] < 1.01  # one int8 step: a value on the edge may round the other way
    assert worst["user"] < 1e-4
    assert worst["scorer"] < 1e-4


def test_formats_are_pinned_and_say_nothing_of_the_machine(exported):
    for name, model in exported[1].items():
        assert model.ir_version == 10, name
        assert {(o.domain, o.version) for o in model.opset_import} == {("", 18)}, name
        assert not model.metadata_props
        text = model.SerializeToString()
        assert b"site-packages" not in text
        assert b".py" not in text


def test_dynamic_dimensions_are_batch_events_and_candidates(exported):
    def dims(model, name):
        (value,) = [v for v in model.graph.input if v.name == name]
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    graphs = exported[1]
    assert dims(graphs["encoder"], "frames") == ["B", 8, 32, 32, 3]
    assert dims(graphs["user"], "tokens") == [1, "N", 3, 2, 16]
    assert dims(graphs["scorer"], "tokens") == ["C", 3, 2, 16]


def test_scorer_handles_extreme_and_zero_queries(exported):
    student, graphs = exported
    config = student.config
    tokens, scales = (x[0] for x in user_example(config, 6, seed=5)[:2])
    mask = torch.tensor([True, True, False, True, True, True])
    for factor in (0.0, 1e-6, 1.0, 50.0):
        query = torch.randn(1, 2, config.layers, config.tokens_per_layer * config.token_width) * factor
        query[0, 1] /= max(factor, 1.0)
        feed = {
            "query": query,
            "bias": torch.randn(1, config.layers),
            "tokens": tokens,
            "scales": scales,
            "mask": mask,
        }
        score, contributions = run(graphs["scorer"], {k: v.numpy() for k, v in feed.items()})
        want, want_contributions = scorer_reference(*feed.values())
        size = max(float(want[mask].std()), 1e-6)
        np.testing.assert_allclose(score, want.numpy(), atol=1e-3 * size)
        np.testing.assert_allclose(contributions, want_contributions.numpy(), atol=1e-3 * size)
        assert score[2] == np.finfo(np.float32).min


@pytest.mark.parametrize("quantise", [quantise_int8, quantise_int4])
def test_quantised_encoder_is_smaller_and_close(exported, feeds, quantise):
    _, graphs = exported
    small = quantise(graphs["encoder"], feeds)
    onnx.checker.check_model(small)
    assert small.ByteSize() < 0.6 * graphs["encoder"].ByteSize()
    want, got = (dequantise(*map(torch.from_numpy, run(g, feeds[0]))) for g in (graphs["encoder"], small))
    assert torch.nn.functional.cosine_similarity(want.flatten(1), got.flatten(1)).min() > 0.95


def test_too_little_calibration_is_refused(exported, feeds):
    with pytest.raises(ArgumentError, match="too few"):
        quantise_int8(exported[1]["encoder"], feeds[:3])


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


def test_tiny_bundle_has_a_valid_manifest(tiny_bundle):
    manifest = parse_manifest((tiny_bundle / "manifest.json").read_bytes())
    assert list(manifest.precisions) == ["int8", "fp32"]
    assert manifest.layer_names == ["input", "layer 2", "layer 3"]
    for precision in manifest.precisions.values():
        for entry in precision.files.values():
            assert (tiny_bundle / entry.path).stat().st_size == entry.bytes
