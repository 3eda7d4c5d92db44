"""Graphs that somebody exported, as a bundle that ranks: taps, joining, the folder's checks, OpenVINO IR in a bundle.

Nothing here needs Optimum; `tests/through_optimum` goes from its own export to a ranking.
"""

import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="the workstation half is not installed")
pytest.importorskip("transformers", reason="the workstation half is not installed")
pytest.importorskip("num2words", reason="the workstation half is not installed")
ov = pytest.importorskip("openvino", reason="the workstation half is not installed")

from linkedout_export.build import calibration_feeds  # noqa: E402
from linkedout_export.cli import export  # noqa: E402
from linkedout_export.conversion import openvino_runner  # noqa: E402
from linkedout_export.graphs import encoder_example  # noqa: E402
from linkedout_export.sensitivity import tokens_of  # noqa: E402
from linkedout_export.vlm import Shape, load_graphs, load_vlm, write_graphs_bundle, write_vlm_bundle  # noqa: E402
from linkedout_export.vlm.exported import PARTS, open_exported  # noqa: E402
from linkedout_export.vlm.fit import fit  # noqa: E402
from linkedout_export.vlm.taps import GraphError, hidden_states, without_cache  # noqa: E402
from linkedout_export.vlm.through_optimum import NotInRegistryError, check_transformers  # noqa: E402
from linkedout_quant.model import dequantize, quantize  # noqa: E402
from linkedout_quant.teachers import TeacherError  # noqa: E402
from vlm_checkpoints import make_internvl, make_qwen2_5_vl, make_smolvlm  # noqa: E402
from vlm_graphs import export_as_optimum_does, small_decoder  # noqa: E402

from linkedout_edge import Recommender, Video  # noqa: E402
from linkedout_edge.bundle.manifest import parse_manifest  # noqa: E402
from linkedout_edge.bundle.reader import open_bundle  # noqa: E402
from linkedout_edge.cli.inspect import inspect  # noqa: E402
from linkedout_edge.errors import ArgumentError, BundleCorruptError, MissingDependencyError  # noqa: E402

FRAMES = 3


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return make_smolvlm(tmp_path_factory.mktemp("checkpoint"), layers=2)


@pytest.fixture(scope="session")
def folder(checkpoint, tmp_path_factory):
    return export_as_optimum_does(checkpoint, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="session")
def student(folder):
    return load_graphs(folder, Shape(frames=FRAMES))


@pytest.fixture(scope="session")
def feeds(student):
    return calibration_feeds(student.config, None, 16)


@pytest.fixture(scope="session")
def bundle(student, feeds, tmp_path_factory):
    out = tmp_path_factory.mktemp("ready") / "bundle"
    write_graphs_bundle(student, out, feeds)
    return out


def computed(outputs, model, feeds):
    """What a graph computes at these outputs."""
    inputs = [p for p in model.get_parameters() if p.output(0).get_any_name() in feeds]
    run = ov.Core().compile_model(ov.Model([ov.opset13.result(o) for o in outputs], inputs), "CPU")
    return [np.array(x) for x in run(feeds).values()]


EMBEDS = np.random.default_rng(5).normal(size=(2, 4, 8)).astype(np.float32)
GIVEN = {"inputs_embeds": EMBEDS}


@pytest.mark.parametrize("additions", [1, 2])
@pytest.mark.parametrize("last_only", [False, True])
def test_taps_are_found_by_where_the_residual_stream_runs(additions, last_only):
    """The input, each block's output, and of the last one what the norm makes of it."""
    model = small_decoder(blocks=3, additions=additions, last_only=last_only)
    first, *between, last = computed(hidden_states(model, 3), model, GIVEN)
    np.testing.assert_array_equal(first, EMBEDS)
    assert [s.shape for s in between] == [(2, 4, 8)] * 2
    assert last.shape == (2, 4, 8)
    np.testing.assert_allclose(last.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(last.std(-1), 1, atol=1e-2)
    assert 0 < np.abs(between[0] - first).max() < np.abs(between[1] - first).max() + 1


def test_taps_through_what_families_and_quantizers_put_between():
    plain = computed(hidden_states(m := small_decoder(), 2), m, GIVEN)
    rounded = computed(hidden_states(m := small_decoder(quantized=True), 2), m, GIVEN)
    for a, b in zip(plain, rounded, strict=True):
        np.testing.assert_allclose(a, b, atol=0.1)
    assert np.abs(plain[2] - rounded[2]).max() > 0  # it is rounded behind the first tap
    scaled = computed(hidden_states(m := small_decoder(scaled=True), 2), m, GIVEN)
    np.testing.assert_allclose(scaled[0], EMBEDS * 3, rtol=1e-6)


@pytest.mark.parametrize("cache", ["inputs", "state"])
def test_without_a_cache_it_reads_all_in_one_pass(cache):
    """As the graph itself does with nothing in its cache."""
    model = small_decoder(cache=cache)
    feeds = {**GIVEN, "attention_mask": np.ones((2, 4), np.int64)}
    if cache == "inputs":
        feeds |= {f"past_key_values.{i}.key": np.zeros((2, 1, 0, 8), np.float32) for i in range(2)}
    else:
        feeds["beam_idx"] = np.arange(2, dtype=np.int32)
    run = ov.Core().compile_model(model, "CPU")
    want = run(feeds)["logits"]
    changed = small_decoder(cache=cache)
    without_cache(changed)
    logits = next(r for r in changed.get_results() if "logits" in r.input_value(0).get_names())
    (got,) = computed([logits.input_value(0)], changed, GIVEN)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
    ("decoder", "blocks", "message"),
    [
        ({}, 3, "added to the language model's residual stream 4 times, and it has 3 blocks"),
        ({"logits": "scores"}, 2, "gives no logits"),
    ],
)
def test_a_graph_that_is_no_decoder_is_refused(decoder, blocks, message):
    with pytest.raises(GraphError, match=message):
        hidden_states(small_decoder(**decoder), blocks)


def test_exported_graphs_compute_what_torch_computes(checkpoint, student):
    """Every hidden state, with frames and titles masked, and the layer tokens behind the same compressors."""
    torch_way = load_vlm(checkpoint, frames=FRAMES)
    given = encoder_example(student.config, 3)
    with torch.no_grad():
        want = torch_way.encoder.states(*given)
        got = student.encoder.states(*given)
        assert len(got) == len(want) == 3
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4)
        tokens, scales = quantize(student.encoder(*given))
    model = student.encoder.graph(small=False)
    inputs = dict(zip((p.get_any_name() for p in model.inputs), (x.numpy() for x in given), strict=True))
    out = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)
    np.testing.assert_allclose(
        dequantize(torch.tensor(out["tokens"]), torch.tensor(out["scales"])),
        dequantize(tokens, scales),
        atol=float(scales.max()) * 1.5,
    )


def take(kind, number):
    base = np.random.default_rng(3).integers(0, 256, (3, 1, 8, 8, 3)).repeat(4, 2).repeat(4, 3).repeat(FRAMES, 1)
    noise = np.random.default_rng(number).integers(-8, 8, base[0].shape)
    return Video(frames=(base[kind] + noise).clip(0, 255).astype(np.uint8), id=f"{kind} {number}")


def test_a_ready_made_folder_becomes_a_bundle_that_ranks(bundle):
    """Taken as it is: one precision, no agreement with a float graph that nobody has, its own versions."""
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    assert manifest.via == "graphs"
    assert manifest.tools["openvino"]
    assert list(manifest.precisions) == ["fp32"]
    assert manifest.precisions["fp32"].agreement == {}
    assert set(manifest.precisions["fp32"].files) == {"encoder", "weights"}
    with Recommender.load(bundle) as rec:
        assert rec.info().backend == "openvino"
        ranking = rec.rank([take(0, 1), take(0, 2)], [take(1, 3), take(0, 4), take(2, 5)])
        assert ranking[0].id == "0 4"
        assert not ranking.failed
        assert ranking[0].explain().matrix.shape == (2, 2)
    with pytest.raises(ArgumentError, match="OpenVINO IR, which onnxruntime does not read"):
        Recommender.load(bundle, backend="onnxruntime")


def test_without_openvino_it_says_what_to_install(bundle, monkeypatch):
    def absent():
        raise ImportError("No module named 'openvino'")

    monkeypatch.setattr("linkedout_edge.backends.openvino.import_openvino", absent)
    with pytest.raises(MissingDependencyError, match=r"pip install .*openvino"):
        Recommender.load(bundle)


def test_what_a_bundle_of_ir_says_of_itself(bundle):
    inspected = CliRunner().invoke(inspect, [str(bundle), "--json"])
    told = json.loads(inspected.output)
    assert told["verified"]
    assert [p["name"] for p in told["graphs"]["encoder"]["outputs"]] == ["tokens", "scales"]
    assert told["graphs"]["encoder"]["inputs"][0]["shape"] == ["B", FRAMES, 32, 32, 3]


def test_weights_that_were_changed_or_lost_are_noticed(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "b")
    weights = tmp_path / "b" / "openvino" / "fp32" / "encoder.bin"
    data = bytearray(weights.read_bytes())
    data[1000] ^= 1
    weights.write_bytes(data)
    with open_bundle(tmp_path / "b") as opened, pytest.raises(BundleCorruptError, match="SHA-256"):
        opened.weights()
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["precisions"]["fp32"]["files"]["weights"]
    with pytest.raises(BundleCorruptError, match="IR without weights"):
        parse_manifest(json.dumps(manifest).encode())


def test_by_way_of_torch_into_openvino_files(checkpoint, feeds, tmp_path):
    student = load_vlm(checkpoint, frames=FRAMES)
    precisions = ("int8", "fp16", "fp32")
    manifest = write_vlm_bundle(student, tmp_path / "b", feeds, format="openvino", precisions=precisions)
    assert manifest.via == "torch"
    told = {p: e.agreement["token_cosine"] for p, e in manifest.precisions.items()}
    assert told["fp32"] >= told["fp16"] > told["int8"] > 0.95
    size = {p: sum(f.bytes for f in e.files.values()) for p, e in manifest.precisions.items()}
    assert size["int8"] < size["fp16"] < size["fp32"]
    with Recommender.load(tmp_path / "b") as rec:
        assert rec.rank([take(0, 1)], [take(1, 3), take(0, 4)])[0].id == "0 4"


def test_both_ways_to_a_bundle_find_the_same_likeness(checkpoint, bundle, feeds, tmp_path):
    """Compressors are fitted to each way's own features, and still put clips into one order."""
    student = load_vlm(checkpoint, frames=FRAMES)
    fit(student, feeds)
    with torch.no_grad():
        want = np.concatenate(
            [dequantize(*quantize(student.encoder(*map(torch.from_numpy, f.values())))).flatten(1) for f in feeds]
        )
    with open_bundle(bundle) as opened:
        got = tokens_of(openvino_runner(opened.encoder(), opened.weights()), feeds).reshape(len(feeds), -1)
    alike = [x @ x.T for x in (want, got)]
    assert np.corrcoef(*(a[np.triu_indices(len(feeds), 1)] for a in alike))[0, 1] > 0.999


def without(folder, tmp_path, *names):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in names:
        (copy / name).unlink()
    return copy


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ([PARTS["vision"]], "has no vision part"),
        ([PARTS["words"]], f"has no {PARTS['words']}"),
        ([PARTS["language"]], "is of another task than image-text-to-text"),
        ([PARTS["vision"].replace(".xml", ".bin")], "has no weights"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing(folder, tmp_path, lost, message):
    with pytest.raises(GraphError, match=message):
        load_graphs(without(folder, tmp_path, *lost))


def test_ir_of_another_task_is_refused(folder, tmp_path):
    copy = without(folder, tmp_path, *PARTS.values())
    shutil.copyfile(folder / PARTS["language"], copy / "openvino_model.xml")
    with pytest.raises(GraphError, match=r"another task .* \(it has openvino_model.xml\)"):
        open_exported(copy)
    result = CliRunner().invoke(export, [str(copy), "--out", str(tmp_path / "b")])
    assert isinstance(result.exception, GraphError)
    shutil.rmtree(copy)
    copy = without(folder, tmp_path)
    for suffix in (".xml", ".bin"):  # a graph without inputs_embeds in the language model's place
        shutil.copyfile((folder / PARTS["vision"]).with_suffix(suffix), (copy / PARTS["language"]).with_suffix(suffix))
    with pytest.raises(GraphError, match="no input inputs_embeds"):
        load_graphs(copy, Shape(frames=FRAMES)).encoder.graph(small=False)


def test_a_vision_tower_of_any_picture_size_is_refused(folder, tmp_path):
    copy = without(folder, tmp_path)
    shutil.copyfile(make_qwen2_5_vl(tmp_path / "qwen") / "config.json", copy / "config.json")
    with pytest.raises(TeacherError, match=r"\(qwen2_5_vl\) reads pictures of any size"):
        load_graphs(copy)


def test_a_processor_that_makes_other_room_than_the_graph_fills_is_refused(folder, tmp_path):
    copy = without(folder, tmp_path)
    told = json.loads((copy / "processor_config.json").read_text())
    (copy / "processor_config.json").write_text(json.dumps({**told, "image_seq_len": 9}))
    with pytest.raises(GraphError, match=r"gives 4 tokens a frame, .* makes room for 9: copy"):
        load_graphs(copy, Shape(frames=FRAMES)).encoder.graph(small=False)


def test_a_damaged_graph_is_refused(folder, tmp_path):
    copy = without(folder, tmp_path)
    (copy / PARTS["language"]).write_text("<net></net>")
    with pytest.raises(GraphError, match="cannot be read"):
        load_graphs(copy)


def test_taps_that_do_not_exist(folder):
    with pytest.raises(TeacherError, match="no layer 7"):
        load_graphs(folder, Shape(layers=(1, 7)))


def test_a_transformers_outside_the_range_is_told_with_the_pin():
    with pytest.raises(NotInRegistryError, match=r"with transformers up to 4\.0\.1, .*transformers==4\.0\.1'"):
        check_transformers("smolvlm", "torch", None, "4.0.1")
    with pytest.raises(NotInRegistryError, match=r"with transformers from 99\.0, .*transformers==99\.0'"):
        check_transformers("smolvlm", "torch", "99.0", None)
    check_transformers("smolvlm", "torch", "4.0", "98.0")


def run(*arguments):
    return CliRunner().invoke(export, [str(a) for a in arguments])


def test_the_command_takes_a_ready_made_folder(folder, tmp_path):
    done = run(folder, "--out", tmp_path / "b", "--frames", 2, "--clips", 8, "--layer", 1, "--layer", 2)
    assert done.exit_code == 0, done.output
    with Recommender.load(tmp_path / "b") as rec:
        assert len(rec.rank([take(0, 1)], [take(1, 2)])) == 1
    assert parse_manifest((tmp_path / "b" / "manifest.json").read_bytes()).config.taps == (1, 2)


def test_auto_says_why_it_takes_torch(checkpoint, tmp_path):
    pytest.importorskip("onnxscript")
    if find_spec("optimum"):
        pytest.skip("Optimum is installed: tests/through_optimum has the other case")
    done = run(checkpoint, "--out", tmp_path / "b", "--frames", 2, "--clips", 8, "--precision", "int8")
    assert done.exit_code == 0, done.output
    assert "--via torch, because --via optimum needs optimum-intel" in done.stderr
    assert parse_manifest((tmp_path / "b" / "manifest.json").read_bytes()).via == "torch"
    asked = run(checkpoint, "--via", "optimum", "--out", tmp_path / "c")
    assert isinstance(asked.exception, MissingDependencyError)
    assert "make .venv-optimum/installed" in str(asked.exception)


def test_choices_that_make_no_sense_are_refused_before_any_work(checkpoint, folder, bundle, tmp_path):
    internvl = make_internvl(tmp_path / "internvl")
    for arguments, kind, message in (
        ([checkpoint, "--via", "optimun"], ArgumentError, "Did you mean 'optimum'"),
        ([checkpoint, "--precision", "int3"], ArgumentError, "unknown precision 'int3'"),
        ([checkpoint, "--format", "tensorrt"], ArgumentError, "unknown format of a vision-language model"),
        ([checkpoint, "--method", "hq"], ArgumentError, "Did you mean 'hqq'"),
        ([folder, "--via", "torch"], ArgumentError, "holds exported graphs, not a checkpoint"),
        ([folder, "--format", "onnx"], ArgumentError, "leave --format out"),
        ([folder, "--precision", "int4"], ArgumentError, "are in fp32, and are taken as they are"),
        ([bundle, "--frames", "2"], ArgumentError, "is no vision-language model"),
        ([bundle, "--format", "onnx", "--precision", "fp32"], ArgumentError, "holds OpenVINO IR in fp32"),
        (["nobody/nothing/more", "--via", "auto"], TeacherError, "no model of the hub"),
        ([internvl, "--via", "torch"], TeacherError, "family for an encoder graph 'internvl'"),
    ):
        result = run(*arguments, "--out", tmp_path / "never")
        assert isinstance(result.exception, kind), (arguments, result.exception)
        assert message in str(result.exception)
    assert not (tmp_path / "never").exists()
