"""From a checkpoint of the real class through Optimum to a ranking: `make test-optimum`, in Optimum's environment."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optimum.intel", reason="Optimum is not installed here: make test-optimum")

import torch
import vlm_checkpoints
from click.testing import CliRunner
from linkedout_export.build import calibration_feeds
from linkedout_export.cli import export
from linkedout_export.vlm import Shape, load_graphs, load_vlm, write_optimum_bundle
from linkedout_export.vlm.exported import open_exported
from linkedout_export.vlm.fit import fit
from linkedout_export.vlm.taps import GraphError
from linkedout_export.vlm.through_optimum import (
    NotInRegistryError,
    check_registry,
    export_graphs,
    quantize_graphs,
)
from linkedout_quant.model import dequantize, quantize

from linkedout_edge import Recommender, Video
from linkedout_edge.bundle.manifest import parse_manifest
from linkedout_edge.errors import BackendError

FRAMES = 3
FAMILIES = ("smolvlm", "idefics3", "llava", "gemma3")
"""Of Optimum's registry, those whose classes are the library's own and that read a picture of fixed size."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    made = {}

    def make(family):
        if family not in made:
            made[family] = getattr(vlm_checkpoints, f"make_{family}")(folder / family)
        return made[family]

    return make


@pytest.fixture(scope="session")
def graphs(checkpoints, tmp_path_factory):
    """SmolVLM's graphs as Optimum exports them."""
    folder = tmp_path_factory.mktemp("graphs") / "float"
    export_graphs(checkpoints("smolvlm"), folder)
    return folder


@pytest.fixture(scope="session")
def bundle(checkpoints, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "smolvlm"
    write_optimum_bundle(
        checkpoints("smolvlm"), out, lambda c: calibration_feeds(c, None, 24),
        shape=Shape(frames=FRAMES), precisions=("int8", "int4", "fp16", "fp32"),
    )  # fmt: skip
    return out


def take(kind, number, side=32):
    base = np.random.default_rng(3).integers(0, 256, (3, 1, side // 4, side // 4, 3)).repeat(4, 2).repeat(4, 3)
    noise = np.random.default_rng(number).integers(-8, 8, (FRAMES, side, side, 3))
    return Video(frames=(base[kind] + noise).clip(0, 255).astype(np.uint8), id=f"{kind} {number}")


def test_the_manifest_says_which_way_and_how_close(bundle):
    """Parity with torch at each tap: in float at least 0.999, measured in 16, 8 and 4 bit."""
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    assert manifest.via == "optimum"
    assert {"optimum", "optimum-intel", "transformers", "openvino", "nncf"} <= set(manifest.tools)
    told = manifest.precisions
    for precision, least in (("fp32", 0.99999), ("fp16", 0.9999), ("int8", 0.99), ("int4", 0.8)):
        assert list(told[precision].tap_cosine) == ["layer 1", "layer 2", "layer 3"]
        assert min(told[precision].tap_cosine.values()) > least
    cosine = {p: e.agreement["token_cosine"] for p, e in told.items()}
    assert cosine["fp32"] == 1
    assert cosine["fp16"] > cosine["int8"] > cosine["int4"] > 0.8
    size = {p: e.files["weights"].bytes for p, e in told.items()}
    assert size["int4"] < size["int8"] < size["fp16"] < size["fp32"]


@pytest.mark.parametrize("precision", ["int8", "int4", "fp16", "fp32"])
def test_the_bundle_ranks_and_explains(bundle, precision):
    with Recommender.load(bundle, precision=precision) as rec:
        ranking = rec.rank([take(0, 1), take(0, 2)], [take(1, 3), take(0, 4), take(2, 5)])
        assert ranking[0].id == "0 4"
        assert not ranking.failed
        assert ranking[0].explain().matrix.shape == (2, 3)
        titled = Video(frames=take(1, 6).frames, id="t", title="A red ball, 2 dogs")
        assert rec.rank([take(0, 1)], [titled])[0].id == "t"


RUNTIME = """
import sys
import numpy as np
from linkedout_edge import Recommender, Video
frames = np.load(sys.argv[2])
with Recommender.load(sys.argv[1]) as rec:
    candidates = [Video(frames=f, id=str(i)) for i, f in enumerate(frames)]
    print([r.id for r in rec.rank([Video(frames=frames[0])], candidates)])
workshop = {"torch", "transformers", "optimum", "nncf"} & set(sys.modules)
assert not workshop, workshop
"""


def test_the_runtime_needs_nothing_of_this_environment(bundle, tmp_path):
    """In the ordinary environment, where there is one; in any case without the workstation's libraries."""
    ordinary = Path(os.environ.get("LINKEDOUT_PYTHON", ROOT / ".venv" / "bin" / "python"))
    np.save(tmp_path / "frames.npy", np.stack([take(kind, 7).frames for kind in range(3)]))
    python = str(ordinary) if ordinary.exists() else sys.executable
    command = [python, "-c", RUNTIME, str(bundle), str(tmp_path / "frames.npy")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['0',")


def test_both_ways_give_the_same_tokens(checkpoints, graphs):
    """`--via optimum` and `--via torch` of one checkpoint, with the same compressors: layer tokens of 24 clips."""
    torch_way = load_vlm(checkpoints("smolvlm"), frames=FRAMES)
    feeds = calibration_feeds(torch_way.config, None, 24)
    fit(torch_way, feeds)
    optimum_way = load_graphs(graphs, Shape(frames=FRAMES))
    optimum_way.encoder.compressors.load_state_dict(torch_way.encoder.compressors.state_dict())
    with torch.no_grad():
        for feed in feeds:
            given = [torch.from_numpy(x) for x in feed.values()]
            want, got = (dequantize(*quantize(way.encoder(*given))).flatten() for way in (torch_way, optimum_way))
            assert torch.nn.functional.cosine_similarity(want, got, 0) > 0.9999


@pytest.mark.parametrize("stateful", [True, False])
def test_a_folder_of_optimums_is_taken_as_it_is(checkpoints, tmp_path, stateful):
    """As its command line writes it, tokenizer and all: in 4 bit, and in float with the cache as inputs."""
    four = ["--weight-format", "int4", "--sym", "--group-size", "32"]
    options = four if stateful else ["--weight-format", "fp32", "--disable-stateful"]
    cli = Path(sys.executable).with_name("optimum-cli")
    done = subprocess.run(
        [cli, "export", "openvino", "--model", checkpoints("smolvlm"), "--task", "image-text-to-text", *options,
         tmp_path / "g"],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if not (tmp_path / "g" / "processor_config.json").exists():  # without torchvision it writes none
        with pytest.raises(GraphError, match=r"copy the checkpoint's processor_config\.json"):
            load_graphs(tmp_path / "g", Shape(frames=FRAMES)).encoder.graph(small=False)
        shutil.copyfile(checkpoints("smolvlm") / "processor_config.json", tmp_path / "g" / "processor_config.json")
    assert open_exported(tmp_path / "g").precision == ("int4" if stateful else "fp32")
    arguments = ["--frames", str(FRAMES), "--clips", "16", "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(export, [str(tmp_path / "g"), *arguments])
    assert done.exit_code == 0, done.output
    manifest = parse_manifest((tmp_path / "b" / "manifest.json").read_bytes())
    assert manifest.via == "graphs"
    assert manifest.tools["optimum-intel"]
    with Recommender.load(tmp_path / "b") as rec:
        assert rec.rank([take(0, 1), take(0, 2)], [take(1, 3), take(0, 4), take(2, 5)])[0].id == "0 4"


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_from_folder_to_ranking(checkpoints, tmp_path, family):
    arguments = ["--via", "auto", "--frames", str(FRAMES), "--clips", "16", "--precision", "int8", "--json"]
    done = CliRunner().invoke(export, [str(checkpoints(family)), *arguments, "--out", str(tmp_path / "b")])
    assert done.exit_code == 0, done.output
    manifest = parse_manifest((tmp_path / "b" / "manifest.json").read_bytes())
    assert manifest.via == "optimum"
    assert min(manifest.precisions["int8"].tap_cosine.values()) > 0.99
    with Recommender.load(tmp_path / "b") as rec:
        assert rec.rank([take(0, 1), take(0, 2)], [take(1, 3), take(0, 4), take(2, 5)])[0].id == "0 4"


def test_four_bit_by_the_clips_is_no_worse_than_by_the_weights_alone(graphs, tmp_path):
    student = load_graphs(graphs, Shape(frames=FRAMES))
    feeds = calibration_feeds(student.config, None, 24)
    data = student.encoder.language_inputs(feeds[:16])
    assert set(data[0]) == {"inputs_embeds", "attention_mask", "position_ids", "beam_idx"}
    given = [torch.from_numpy(x) for x in feeds[-1].values()]
    want = student.encoder.states(*given)[-1].flatten()
    cosine = {}
    for name, calibration in (("weights", []), ("clips", data)):
        quantize_graphs(graphs, tmp_path / name, "int4", calibration)
        got = student.encoder.over(open_exported(tmp_path / name)).states(*given)[-1].flatten()
        cosine[name] = float(torch.nn.functional.cosine_similarity(want, got, 0))
    assert cosine["clips"] > cosine["weights"] - 0.01
    assert 0.8 < cosine["clips"] < 0.9999


def test_what_the_registry_lacks_is_named_with_what_it_has(checkpoints, tmp_path):
    internvl = vlm_checkpoints.make_internvl(tmp_path / "internvl")
    with pytest.raises(NotInRegistryError, match=r"does not export internvl to openvino .*idefics3.*smolvlm"):
        check_registry(internvl)
    with pytest.raises(NotInRegistryError, match=r"no vision-language model at all.*--format openvino"):
        check_registry(checkpoints("smolvlm"), "onnx")
    asked = CliRunner().invoke(export, [str(internvl), "--via", "optimum", "--out", str(tmp_path / "b")])
    assert isinstance(asked.exception, NotInRegistryError)


def test_auto_takes_torch_where_the_format_is_not_optimums(checkpoints, tmp_path):
    arguments = [
        "--format",
        "onnx",
        "--frames",
        "2",
        "--clips",
        "8",
        "--precision",
        "int8",
        "--out",
        str(tmp_path / "b"),
    ]
    done = CliRunner().invoke(export, [str(checkpoints("smolvlm")), *arguments])
    assert done.exit_code == 0, done.output
    assert "--via torch, because optimum-onnx" in done.stderr
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["via"] == "torch"


def test_an_export_that_optimum_fails_at_is_told_as_such(checkpoints, tmp_path):
    """A checkpoint whose configuration does not fit its weights."""
    broken = tmp_path / "broken"
    shutil.copytree(checkpoints("smolvlm"), broken)
    config = json.loads((broken / "config.json").read_text())
    config["text_config"]["hidden_size"] = 128
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackendError, match=r"optimum-intel .* failed to export"):
        export_graphs(broken, tmp_path / "g")
