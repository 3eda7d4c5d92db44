"""Do Optimum's quantizers reach what ours do on the small student? Size, token cosine, time to encode.

    .venv-optimum/bin/python benchmarks/optimum_student.py models/base

Ours are the built-in bundle's int8 and int4 graphs, which were made of that run. Optimum's are made of its fp32 graph,
on 48 micro-videos, and all are measured on 32 others: `optimum-onnx`'s ORTQuantizer with its configuration for
AVX512-VNNI (and 7-bit weights, as ours), in ONNX Runtime; `optimum-intel`'s OVQuantizer, in OpenVINO. Times are medians
of turns taken alternately, one thread, × faster than fp32 in the same library.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nncf
import numpy as np
import onnxruntime as ort
import openvino as ov
from linkedout_export.build import calibration_feeds
from linkedout_export.graphs import export_encoder
from linkedout_export.sensitivity import cosine, tokens_of
from linkedout_export.vlm.joined import EXACT
from linkedout_export.writer import token_space
from linkedout_quant.master import load_student
from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer, OVWeightQuantizationConfig
from optimum.intel.openvino import OVModelForCustomTasks
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig
from transformers import PretrainedConfig

from linkedout_edge.bundle.reader import open_bundle

Feeds = dict[str, np.ndarray]
TURNS = 30


def in_onnxruntime(data: bytes) -> Callable[[Feeds], Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(["tokens", "scales"], feed)


def in_openvino(model: Any) -> Callable[[Feeds], Any]:
    request = ov.Core().compile_model(model, "CPU", {**EXACT, "INFERENCE_NUM_THREADS": 1}).create_infer_request()

    def run(feed: Feeds) -> Any:
        request.infer(feed)
        return [np.array(request.get_tensor(name).data) for name in ("tokens", "scales")]

    return run


def by_ort_quantizer(encoder: bytes, feeds: list[Feeds], work: Path, method: str | None) -> bytes:
    """`method` None: dynamic; else static by that method, on all operators that the configuration names."""
    path = work / "model.onnx"
    path.write_bytes(encoder)
    quantizer = ORTQuantizer(path, config=PretrainedConfig())
    config = AutoQuantizationConfig.avx512_vnni(is_static=method is not None, per_channel=True)
    config.reduce_range = True  # as ours: CPUs without VNNI
    ranges = None
    if method is not None:
        rows = [{k: v[0] for k, v in f.items()} for f in feeds]  # it puts the batch's dimension back
        calibration = getattr(AutoCalibrationConfig, method)(_Rows(rows))
        ranges = quantizer.fit(
            _Rows(rows), calibration, onnx_augmented_model_name=work / "augmented.onnx",
            operators_to_quantize=config.operators_to_quantize,
        )  # fmt: skip
    out = work / f"q-{method}"
    quantizer.quantize(save_dir=out, quantization_config=config, calibration_tensors_range=ranges)
    return next(out.glob("*.onnx")).read_bytes()


class _Rows(list):
    """Clips where the library expects a `datasets.Dataset`: it iterates, and asks where they are from."""

    info = SimpleNamespace(builder_name="micro-videos", config_name="", features=None)
    split, num_rows = "calibration", property(len)


def by_ov_quantizer(encoder: bytes, config: Any, feeds: list[Feeds] | None = None) -> Any:
    model = OVModelForCustomTasks(ov.Core().read_model(encoder, b""), config=PretrainedConfig(), compile=False)
    OVQuantizer(model).quantize(
        calibration_dataset={"model": nncf.Dataset(feeds)} if feeds else None,
        ov_config=OVConfig(quantization_config=config),
    )
    return model.model


def size_of(made: Any, work: Path) -> int:
    if isinstance(made, bytes):
        return len(made)
    ov.save_model(made, work / "s.xml", compress_to_fp16=True)
    return (work / "s.xml").stat().st_size + (work / "s.bin").stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the training run")
    args = parser.parse_args()
    student = load_student(args.run)
    config, graphs = student.config, {}
    for precision in ("int8", "int4"):
        with open_bundle(precision) as bundle:
            if bundle.manifest.token_space != token_space(student):
                raise SystemExit(f"the built-in bundle was not made of {args.run}")
            graphs[precision] = bundle.encoder()
    exact = export_encoder(student.encoder).SerializeToString()
    clips, held_out = calibration_feeds(config, None, 48), calibration_feeds(config, None, 32, seed=78)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        makers: dict[str, Callable[[], Any]] = {
            "ours int8": lambda: graphs["int8"],
            "ours int4": lambda: graphs["int4"],
            "ORTQuantizer int8 dynamic": lambda: by_ort_quantizer(exact, clips, work, None),
            "ORTQuantizer int8 static, minmax": lambda: by_ort_quantizer(exact, clips, work, "minmax"),
            "ORTQuantizer int8 static, percentiles": lambda: by_ort_quantizer(exact, clips, work, "percentiles"),
            "OVQuantizer int8 weights": lambda: by_ov_quantizer(exact, OVWeightQuantizationConfig(bits=8)),
            "OVQuantizer int4 weights": lambda: by_ov_quantizer(
                exact, OVWeightQuantizationConfig(bits=4, sym=True, group_size=32, all_layers=True)
            ),
            "OVQuantizer int8 static": lambda: by_ov_quantizer(
                exact, OVQuantizationConfig(bits=8, num_samples=len(clips)), clips
            ),
            "OVQuantizer int8 static, no SmoothQuant": lambda: by_ov_quantizer(
                exact, OVQuantizationConfig(bits=8, num_samples=len(clips), smooth_quant_alpha=-1), clips
            ),
        }
        runs = {
            "fp32, ONNX Runtime": in_onnxruntime(exact),
            "fp32, OpenVINO": in_openvino(ov.Core().read_model(exact, b"")),
        }
        sizes = dict.fromkeys(runs, len(exact))
        failed = {}
        for name, make in makers.items():
            print(f"making {name}", flush=True)
            try:
                made = make()
                sizes[name] = size_of(made, work)
                runs[name] = in_onnxruntime(made) if isinstance(made, bytes) else in_openvino(made)
                runs[name](held_out[0])
                if name.startswith("ours"):
                    runs[f"{name}, OpenVINO"] = in_openvino(ov.Core().read_model(made, b""))
                    sizes[f"{name}, OpenVINO"] = sizes[name]
            except Exception as e:  # the table says so
                runs.pop(name, None)
                failed[name] = f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200]}"
        want = tokens_of(runs["fp32, ONNX Runtime"], held_out)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(TURNS):
            for name, run in runs.items():
                start = time.perf_counter()
                run(held_out[turn % len(held_out)])
                times[name].append(time.perf_counter() - start)
        print("| | file MB | token cosine | × faster than fp32 |\n|---|---|---|---|")
        for name, run in runs.items():
            is_ov = "OpenVINO" in name or name.startswith("OVQ")
            base = statistics.median(times["fp32, OpenVINO" if is_ov else "fp32, ONNX Runtime"])
            close = cosine(want, tokens_of(run, held_out))
            print(f"| {name} | {sizes[name] / 1e6:.2f} | {close:.4f} | {base / statistics.median(times[name]):.2f} |")
        for name, why in failed.items():
            print(f"| {name} | failed: {why} |")


if __name__ == "__main__":
    main()
