"""`quantize` and `export`: every cell of the table on a tiny bundle, and what is refused."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

onnx = pytest.importorskip("onnx", reason="the workstation half is not installed")
pytest.importorskip("torch", reason="the workstation half is not installed")

from linkedout_export import commands, formats, operators, sensitivity  # noqa: E402
from linkedout_export.cli import export, quantize  # noqa: E402
from linkedout_export.conversion import for_tensorrt, with_fixed_size  # noqa: E402
from linkedout_export.graphs import encoder_example  # noqa: E402
from linkedout_export.quantization import (  # noqa: E402
    full_range_weights,
    prepared_graph,
    quantize_int4,
    quantize_int8,
    quantize_int8_dynamic,
)
from linkedout_export.sensitivity import (  # noqa: E402
    WORTH,
    choose_int8,
    choose_method,
    cosine,
    onnx_runner,
    sensitive_nodes,
    tokens_of,
)

from linkedout_edge import Recommender, Video  # noqa: E402
from linkedout_edge.backends import cpu  # noqa: E402
from linkedout_edge.backends.base import INPUTS  # noqa: E402
from linkedout_edge.bundle import open_bundle  # noqa: E402
from linkedout_edge.bundle.manifest import parse_manifest  # noqa: E402
from linkedout_edge.config import ModelConfig  # noqa: E402
from linkedout_edge.errors import (  # noqa: E402
    ArgumentError,
    BackendError,
    BundleCorruptError,
    MissingDependencyError,
    StorageFullError,
)

ROOT = Path(__file__).parents[1]


def clips(count, seed=0):
    config = ModelConfig.tiny()
    return [
        dict(zip(INPUTS, (x.numpy() for x in encoder_example(config, 1, seed * 100 + i)), strict=True))
        for i in range(count)
    ]


def few(count, seed):
    """Calibration that does not render: the same for every test."""
    return clips(8 if count > 16 else 4, seed)


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy of the tiny bundle that has fp32 alone."""
    target = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, target)
    told = json.loads((target / "manifest.json").read_text())
    told["precisions"] = {"fp32": told["precisions"]["fp32"]}
    (target / "manifest.json").write_text(json.dumps(told))
    shutil.rmtree(target / "onnx" / "int8")
    return target


@pytest.fixture(scope="module")
def encoder(tiny_bundle):
    with open_bundle(tiny_bundle, "fp32") as b:
        return onnx.load_from_string(b.encoder())


def check_files(folder, manifest):
    for entry in [e for x in manifest.exports.values() for e in x.files.values()]:
        with open_bundle(folder) as b:
            b.read(entry)  # raises if bytes or SHA-256 differ


# --- quantize -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["int8", "int4", "fp16"])
def test_a_precision_is_added_and_ranks(bundle, precision, frames):
    manifest = commands.quantize_bundle(bundle, bundle, precision, "cpu", few, method="minmax", users=0)
    assert list(manifest.precisions) == [precision, "fp32"]  # the first is what a bundle is loaded in
    assert manifest.precisions[precision].agreement["token_cosine"] > (0.999 if precision == "fp16" else 0.95)
    sizes = {p: sum(f.bytes for f in e.files.values()) for p, e in manifest.precisions.items()}
    assert sizes[precision] < 0.8 * sizes["fp32"]
    with Recommender.load(bundle) as rec:
        seen, new = (Video(frames=frames + np.uint8(i), id=str(i)) for i in range(2))
        assert len(rec.rank([seen], [new])) == 1


def test_dynamic_int8_needs_no_calibration(bundle):
    def forbidden(count, seed):
        assert seed == 78, "only the clips that measure"
        return clips(4, seed)

    manifest = commands.quantize_bundle(bundle, bundle, "int8", "cpu", forbidden, dynamic=True, users=0)
    assert manifest.precisions["int8"].agreement["token_cosine"] > 0.99
    with open_bundle(bundle, "int8") as b:
        kinds = operators.names(onnx.load_from_string(b.encoder()))
    assert "DynamicQuantizeLinear" in kinds


@pytest.mark.parametrize(
    ("target", "precision", "folder"),
    [
        ("npu", "int4", "static/openvino/int4"),
        ("jetson", "int8", "static/tensorrt/int8"),
        ("jetson", "fp16", "static/tensorrt/fp16"),
    ],
)
def test_a_target_gets_its_own_graphs(bundle, target, precision, folder):
    if target == "npu":
        pytest.importorskip("nncf")
    manifest = commands.quantize_bundle(bundle, bundle, precision, target, few, method="minmax", users=0)
    assert set(manifest.exports) == {folder}
    entry = manifest.exports[folder]
    assert entry.static
    assert entry.sizes["encoder"] == 1
    assert entry.unmeasured or entry.parity["token_cosine"] > 0.9
    assert bool(entry.unmeasured) == (folder == "static/tensorrt/int8" and cpu.instruction_set().overflows)
    check_files(bundle, manifest)


def test_a_bundle_without_fp32_is_quantized_already(bundle):
    told = json.loads((bundle / "manifest.json").read_text())
    told["precisions"] = {"int8": told["precisions"].pop("fp32")}
    (bundle / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(ArgumentError, match=r"quantized already.*training run's folder"):
        commands.quantize_bundle(bundle, bundle, "int4", "cpu", few, users=0)
    with pytest.raises(ArgumentError, match="quantized already"):
        commands.export_bundle(bundle, bundle, "tensorrt", [], few)


def test_a_precision_that_is_there_is_not_made_twice(tiny_bundle, tmp_path):
    before = (tiny_bundle / "manifest.json").read_bytes()
    with pytest.raises(ArgumentError, match=r"already.*--overwrite"):
        commands.quantize_bundle(tiny_bundle, tmp_path / "out", "int8", "cpu", few, users=0)
    assert not (tmp_path / "out").exists()
    assert (tiny_bundle / "manifest.json").read_bytes() == before
    again = commands.quantize_bundle(
        tiny_bundle, tmp_path / "out", "int8", "cpu", few, method="minmax", users=0, overwrite=True
    )
    assert list(again.precisions) == ["int8", "fp32"]
    assert (tiny_bundle / "manifest.json").read_bytes() == before


def test_a_run_becomes_a_bundle(tmp_path):
    import torch
    from linkedout_export.tiny import TEXTS
    from linkedout_quant.master import new_student, save_master
    from linkedout_quant.tokenizer import portable, train_tokenizer

    torch.manual_seed(0)
    run, tokenizer = tmp_path / "run", train_tokenizer(TEXTS, 320)
    run.mkdir()
    save_master(run, new_student(ModelConfig.tiny(), tokenizer))
    (run / "config.json").write_bytes(msgspec.json.encode(ModelConfig.tiny()))
    (run / "tokenizer.json").write_bytes(portable(tokenizer))
    command = [str(run), "--precision", "int8", "--dynamic", "--users", "0", "--json"]
    result = CliRunner().invoke(quantize, command, catch_exceptions=False)
    told = json.loads(result.stdout.splitlines()[-1])
    assert list(told["precisions"]) == ["int8", "fp32"]
    assert told["parity"]["encoder"] < 1.5
    with Recommender.load(run / "bundle") as rec:
        assert rec.info()


# --- export ---------------------------------------------------------------------------------------------------------


def test_all_formats_at_once(tiny_bundle, tmp_path):
    pytest.importorskip("openvino")
    out = tmp_path / "out"
    manifest = commands.export_bundle(tiny_bundle, out, "all", [], few)
    assert set(manifest.exports) == {
        "static/onnx/int8",
        "openvino/int8",
        "static/openvino/int8",
        "static/tensorrt/int8",
        "static/tensorrt/fp16",
    }
    for folder, entry in manifest.exports.items():
        # TensorRT's weights use all eight bits; this CPU may not be able to add up such products.
        full = folder == "static/tensorrt/int8"
        assert entry.full_range_weights is full
        assert bool(entry.unmeasured) == (full and cpu.instruction_set().overflows)
        assert not entry.static or entry.sizes, folder
        if entry.unmeasured:
            assert entry.parity == {}, folder
            continue
        assert entry.parity["token_cosine"] > 0.95, folder
        if entry.static and entry.format != "openvino":
            assert entry.parity["static_difference"] <= 1e-4, folder
    check_files(out, manifest)
    with Recommender.load(out) as rec:  # what the runtime reads is as before
        assert rec.info()


def on_cpu(monkeypatch, *features):
    monkeypatch.setattr(cpu, "instruction_set", lambda: cpu.InstructionSet("x86-64", features))


def test_full_range_int8_is_not_compared_where_it_overflows(tiny_bundle, tmp_path, monkeypatch):
    on_cpu(monkeypatch, "avx2", "avx512f")
    ran = []
    monkeypatch.setattr(commands, "static_difference", lambda *_: ran.append("difference"))
    monkeypatch.setattr(commands, "onnx_runner", lambda *_: ran.append("tokens"))
    out = tmp_path / "out"
    monkeypatch.setattr("linkedout_export.build.calibration_feeds", lambda config, data, clips, seed: few(clips, seed))
    done = CliRunner().invoke(
        export, [str(tiny_bundle), "--format", "tensorrt", "--precision", "int8", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert ran == []
    line = next(x for x in done.output.splitlines() if x.startswith("static/tensorrt/int8"))
    assert "not measured here" in line
    assert "avx512f" in line
    entry = open_bundle(out).manifest.exports["static/tensorrt/int8"]
    assert entry.parity == {}
    assert entry.unmeasured in line
    assert entry.full_range_weights


def test_full_range_int8_is_compared_where_it_fits(tiny_bundle, tmp_path, monkeypatch):
    on_cpu(monkeypatch, "avx2", "avx-vnni")
    monkeypatch.setattr(commands, "static_difference", lambda *_: 0.0)  # the real CPU may overflow
    manifest = commands.export_bundle(tiny_bundle, tmp_path / "out", "tensorrt", ["int8"], few)
    entry = manifest.exports["static/tensorrt/int8"]
    assert set(entry.parity) == {"token_cosine", "static_difference"}
    assert entry.unmeasured == ""
    assert entry.full_range_weights


def test_which_graphs_have_full_range_weights_is_seen_in_the_graphs(encoder, tiny_bundle):
    feeds = clips(8)
    assert full_range_weights(quantize_int8(encoder, feeds, symmetric=True, reduce_range=False))
    seven_bits = quantize_int8(encoder, feeds, symmetric=True)
    assert not full_range_weights(seven_bits)
    (name,) = [i for i in seven_bits.graph.initializer if i.data_type == onnx.TensorProto.INT8 and len(i.dims) == 4][:1]
    weight = onnx.numpy_helper.to_array(name).copy()
    weight.flat[0] = 65  # 255 · (65 + 64) is more than 15 bits hold
    name.CopyFrom(onnx.numpy_helper.from_array(weight, name.name))
    assert full_range_weights(seven_bits)
    assert not full_range_weights(encoder)
    assert not full_range_weights(quantize_int8_dynamic(encoder))
    assert not full_range_weights(quantize_int4(encoder, feeds))
    # What ships.
    for bundle, precision in [("int8", "int8"), ("int4", "int4"), (tiny_bundle, "int8")]:
        with open_bundle(bundle, precision) as opened:
            assert not full_range_weights(onnx.load_from_string(opened.encoder())), bundle


def test_static_graphs_have_no_open_dimension_and_tensorrt_rules_hold(tiny_bundle, tmp_path):
    manifest = commands.export_bundle(tiny_bundle, tmp_path / "out", "tensorrt", ["int8"], few)
    path = tmp_path / "out" / manifest.exports["static/tensorrt/int8"].files["encoder.onnx"].path
    model = onnx.load(path)
    assert all(d.dim_value for v in [*model.graph.input, *model.graph.output] for d in v.type.tensor_type.shape.dim)
    assert not operators.shifted_quantizers(model)
    users = [n.op_type for n in model.graph.node if "frames" in n.input]
    assert users == ["Cast"]  # uint8 is for the network's input alone
    producer = next(n for n in model.graph.node if "tokens" in n.output)
    assert producer.op_type == "QuantizeLinear"


def test_the_tensorrt_encoder_gives_the_same_tokens(encoder):
    feeds = clips(3)
    for want, got in zip(onnx_runner(encoder)(feeds[0]), onnx_runner(for_tensorrt(encoder))(feeds[0]), strict=True):
        np.testing.assert_array_equal(want, got)


def test_an_exact_pair_that_the_bundle_lacks_names_the_command(tiny_bundle, tmp_path):
    with pytest.raises(ArgumentError, match=r"has no int4.*quantize .* --precision int4"):
        commands.export_bundle(tiny_bundle, tmp_path / "out", "onnx", ["int4"], few)


def test_exports_may_be_absent_and_their_paths_are_checked(tiny_bundle):
    told = json.loads((tiny_bundle / "manifest.json").read_text())
    for optional in ("exports", "parity"):
        told.pop(optional, None)
    assert parse_manifest(json.dumps(told).encode()).exports == {}
    entry = told["tokenizer"] | {"path": "../outside"}
    told["exports"] = {"x": {"format": "onnx", "precision": "int8", "files": {"a": entry}}}
    with pytest.raises(BundleCorruptError, match="outside"):
        parse_manifest(json.dumps(told).encode())


# --- operators ------------------------------------------------------------------------------------------------------


def test_operators_are_checked_per_target(encoder):
    dynamic = quantize_int8_dynamic(encoder)
    operators.check_operators(dynamic, operators.OPENVINO)
    with pytest.raises(BackendError, match=r"TensorRT does not list .*MatMulInteger.*encoder"):
        operators.check_operators(dynamic, operators.TENSORRT)
    with pytest.raises(BackendError, match="symmetric"):
        operators.check_operators(quantize_int8(encoder, clips(8)), operators.TENSORRT)
    old = dataclasses.replace(operators.OPENVINO, newest_opset=17)
    with pytest.raises(BackendError, match="opset 18"):
        operators.check_operators(encoder, old)


def test_nothing_is_written_when_an_operator_is_missing(tiny_bundle, tmp_path, monkeypatch):
    poor = dataclasses.replace(operators.ONNXRUNTIME, operators=frozenset({"Add"}))
    monkeypatch.setitem(formats.FORMATS, "onnx", dataclasses.replace(formats.FORMATS["onnx"], operators=poor))
    with pytest.raises(BackendError, match="does not list"):
        commands.export_bundle(tiny_bundle, tmp_path / "out", "onnx", [], few)
    assert list(tmp_path.iterdir()) == []


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (export, ["--format", "openvno"], "Did you mean 'openvino'"),
        (export, ["--format", "tensorrt", "--precision", "int4"], "it has int8, fp16; int4 exists for onnx, openvino"),
        (export, ["--precision", "int-8"], "Did you mean 'int8'"),
        (quantize, ["--precision", "int44"], "Did you mean 'int4'"),
        (quantize, ["--precision", "int8", "--target", "jetsn"], "Did you mean 'jetson'"),
        (
            quantize,
            ["--precision", "int4", "--target", "jetson"],
            "use --precision int8 or fp16 there, or int4 on cpu, npu",
        ),
        (quantize, ["--precision", "int8", "--method", "entropi"], "Did you mean 'entropy'"),
        (quantize, ["--precision", "int4", "--dynamic"], "--dynamic is for int8"),
    ],
)
def test_names_and_pairs_are_explained(tiny_bundle, command, arguments, says):
    result = CliRunner().invoke(command, [str(tiny_bundle), *arguments])
    assert isinstance(result.exception, ArgumentError)
    assert says in str(result.exception)


def test_calibration_of_another_shape_is_refused(encoder):
    good = clips(8)
    for name, wrong, says in (
        ("frames", np.zeros((1, 8, 16, 16, 3), np.uint8), r"frames is uint8 .*expected uint8 \[any, 8, 32, 32, 3\]"),
        ("frames", good[0]["frames"].astype(np.float32), "frames is float32"),
        ("frame_mask", np.ones(8, bool), r"frame_mask is bool \[8\]"),
    ):
        with pytest.raises(ArgumentError, match=says):
            quantize_int8(encoder, [*good[:-1], good[-1] | {name: wrong}])
    with pytest.raises(ArgumentError, match="batch 7 has frame_mask, title_ids, title_mask"):
        quantize_int8(encoder, [*good[:-1], {k: v for k, v in good[-1].items() if k != "frames"}])


@pytest.mark.parametrize(("module", "line"), [("openvino", "'openvino>="), ("nncf", "'nncf>=")])
def test_an_absent_toolkit_names_its_line(tiny_bundle, tmp_path, monkeypatch, module, line):
    found = formats.importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == module else found(name))
    with pytest.raises(MissingDependencyError, match=module) as raised:
        commands.export_bundle(tiny_bundle, tmp_path / "out", "openvino", ["int4"], few)
    assert f"pip install {line}" in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_changes_nothing(bundle, monkeypatch):
    before = sorted(p for p in bundle.rglob("*"))
    usage = shutil.disk_usage(bundle)
    monkeypatch.setattr(commands.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StorageFullError, match=r"MB free.*--out"):
        commands.quantize_bundle(bundle, bundle, "fp16", "cpu", few, users=0)
    monkeypatch.undo()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(commands, "_write", full)
    with pytest.raises(StorageFullError, match="make room"):
        commands.quantize_bundle(bundle, bundle, "fp16", "cpu", few, users=0)
    assert sorted(p for p in bundle.rglob("*")) == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


def test_a_zip_is_refused(tiny_bundle, tmp_path):
    packed = shutil.make_archive(str(tmp_path / "b"), "zip", tiny_bundle)
    with pytest.raises(ArgumentError, match="unpack"):
        commands.Source.open(Path(packed))


# --- measuring ------------------------------------------------------------------------------------------------------


def test_the_method_is_chosen_by_measuring(encoder, capsys):
    found = choose_method(encoder, clips(8), clips(4, 1))
    assert set(found) == {"minmax", "entropy", "percentile"}
    assert capsys.readouterr().out == ""  # or --json would not be JSON
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_first_convolutions_stay_in_float_while_that_is_worth_it(encoder, monkeypatch):
    convolutions = [n.name for n in prepared_graph(encoder).graph.node if n.op_type == "Conv"]
    gains = iter([0.9, 0.9 + WORTH, 0.9 + 2.5 * WORTH, 0.9 + 2.7 * WORTH, 1.0])
    monkeypatch.setattr(sensitivity, "cosine", lambda *_: next(gains))
    assert choose_int8(encoder, clips(8), clips(2, 1), "minmax").keep == tuple(convolutions[:2])
    monkeypatch.undo()
    monkeypatch.setattr(sensitivity, "WORTH", -1.0)  # then all are worth it
    every = choose_int8(encoder, clips(8), clips(4, 1), "minmax")
    assert every.keep == tuple(convolutions)
    float_ones = quantize_int8(encoder, clips(8), method="minmax", keep=every.keep)
    want, held = tokens_of(onnx_runner(encoder), clips(4, 1)), clips(4, 1)
    assert every.cosine == pytest.approx(cosine(want, tokens_of(onnx_runner(float_ones), held)), abs=1e-6)
    weights = {n.input[1] for n in float_ones.graph.node if n.op_type == "Conv"}
    assert weights <= {i.name for i in float_ones.graph.initializer}  # read as they are, not by way of int8


def test_a_group_left_in_float_is_really_left(encoder):
    feeds, held = clips(8), clips(4, 1)
    groups = sensitive_nodes(encoder, feeds, held, group=8)
    gains = [gain for gain, _ in groups]
    assert gains == sorted(gains, reverse=True)
    whole = quantize_int8(encoder, feeds)
    kept = quantize_int8(encoder, feeds, keep=groups[0][1])
    assert kept.ByteSize() > whole.ByteSize()
    want = tokens_of(onnx_runner(encoder), held)
    gain = cosine(want, tokens_of(onnx_runner(kept), held)) - cosine(want, tokens_of(onnx_runner(whole), held))
    assert gain == pytest.approx(gains[0], abs=1e-6)


def test_a_static_graph_refuses_other_sizes(encoder):
    fixed = with_fixed_size(encoder)
    two = dict(zip(INPUTS, (x.numpy() for x in encoder_example(ModelConfig.tiny(), 2, 0)), strict=True))
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT|Got invalid dimensions"):
        onnx_runner(fixed)(two)


# --- help and documentation follow the table ------------------------------------------------------------------------


def test_help_and_documentation_follow_the_table():
    told = CliRunner().invoke(export, ["--help"]).output
    assert all(f.title in " ".join(told.split()) for f in formats.FORMATS.values())
    told = CliRunner().invoke(quantize, ["--help"]).output
    assert all(t in told for t in formats.TARGETS)
    assert formats.markdown_table() in (ROOT / "docs" / "export.md").read_text()


def test_the_table_names_only_what_exists():
    for target in formats.TARGETS.values():
        for precision, name in target.precisions.items():
            assert precision in formats.QUANTIZED
            assert name is None or precision in formats.FORMATS[name].precisions
