"""A SmolVLM2-256M-shaped encoder in torch, ONNX Runtime and OpenVINO: memory, time and size in 32, 16, 8 and 4 bit.

    .venv-optimum/bin/python benchmarks/vlm.py --frames 2 --threads 1

`openvino` is --via torch --format openvino, `optimum` is --via optimum; without Optimum (any other environment) leave
the latter out with --only. OpenVINO runs with the options of the runtime.

Weights are random, so nothing here says how good the model is; `tokens` is the cosine of the layer tokens with those of
float32 torch, projections fitted, and shows that every variant computes the same model. Each variant runs in processes
of its own, in turn. `loading` and `running` are the process's peak memory in MB until the model is loaded and after
that; `idle` is a process that has imported the same libraries and loaded nothing. `CPU s` is processor time, which a
busy machine disturbs less than the clock; `× bf16` compares it. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TORCH: dict[str, dict[str, str]] = {
    "torch fp32": {},
    "torch bf16": {"dtype": "bfloat16"},
    "torch 8bit": {"load_in": "8bit"},
    "torch 4bit": {"load_in": "4bit"},
}
ONNX = ("fp32", "int8", "int4")
IR = ("fp32", "fp16", "int8", "int4")
VARIANTS = [
    *TORCH,
    *(f"onnxruntime {p}" for p in ONNX),
    *(f"openvino {p}" for p in ONNX),
    *(f"optimum {p}" for p in IR),
]
SIZES, HALF = "sizes.json", "bf16"
CLIPS = 8  # what the projections are fitted to


def peak_mb() -> float:
    # Not getrusage: its maximum is inherited from the process that started this one.
    line = next(r for r in Path("/proc/self/status").read_text().splitlines() if r.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """Free what loading left over, and reset the peak."""
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def clips(frames: int, side: int = 512) -> list[dict]:
    import numpy as np

    from linkedout_edge.microworld import random_attributes, render_frames

    rng = np.random.default_rng(5)
    times = np.linspace(0.05, 0.95, frames)
    none = np.zeros((1, 16), np.int32)
    return [
        {
            "frames": render_frames(random_attributes(rng), int(rng.integers(2**31)), times, side)[None],
            "frame_mask": np.ones((1, frames), bool),
            "title_ids": none,
            "title_mask": none.astype(bool),
        }
        for _ in range(CLIPS)
    ]


def halve(whole: Path, half: Path) -> None:
    """The checkpoint in bfloat16, as such models are published: what is read while loading counts as memory too."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(whole, half, ignore=shutil.ignore_patterns("*.safetensors*", "*.onnx", "*.xml", "*.bin", HALF))
    weights = {k: v.to(torch.bfloat16) for k, v in load_file(whole / "model.safetensors").items()}
    save_file(weights, half / "model.safetensors", {"format": "pt"})
    told = (half / "config.json").read_text()
    (half / "config.json").write_text(told.replace('"dtype": "float32"', '"dtype": "bfloat16"'))


def prepare(work: Path, frames: int, variants: list[str]) -> None:
    """Make the checkpoint and every graph that is asked for, and note sizes in bytes."""
    import numpy as np
    import onnx
    import openvino
    import torch
    from linkedout_export.graphs import export_encoder
    from linkedout_export.vlm import load_vlm
    from linkedout_export.vlm.fit import fit
    from linkedout_export.vlm.quantize import onnx_int4, onnx_int8, openvino_compressed
    from linkedout_quant.model import dequantize, quantize
    from safetensors.torch import save_file
    from vlm_checkpoints import make_smolvlm2_256m

    def step(name: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {name}", file=sys.stderr, flush=True)

    start = time.perf_counter()
    if not (work / "model.safetensors").exists():
        step("checkpoint of the shape")
        make_smolvlm2_256m(work)
    halve(work, work / HALF)
    step("fit")
    student, feeds = load_vlm(work, frames=frames), clips(frames)
    fit(student, feeds)
    with torch.no_grad():
        given = [torch.from_numpy(x) for x in feeds[0].values()]
        np.save(work / "tokens.npy", dequantize(*quantize(student.encoder(*given))).numpy())
    save_file(student.encoder.compressors.state_dict(), work / "compressors.safetensors.fitted")
    sizes = {}
    graphs = {v.split()[1] for v in variants if v.startswith(("onnxruntime", "openvino"))}
    if graphs:
        step("export")
        exact = export_encoder(student.encoder)
        for precision in ONNX:
            if precision not in graphs:
                continue
            step(precision)
            made = {"fp32": lambda m: m, "int8": onnx_int8, "int4": onnx_int4}[precision](exact)
            onnx.save(made, work / f"{precision}.onnx")
            sizes[f"onnxruntime {precision}"] = (work / f"{precision}.onnx").stat().st_size
            del made
            if f"openvino {precision}" in variants:
                if precision == "fp32":
                    model = openvino.Core().read_model(work / "fp32.onnx")
                else:
                    model = openvino_compressed(exact, 8 if precision == "int8" else 4)
                openvino.save_model(model, work / f"{precision}.xml", compress_to_fp16=False)
                sizes[f"openvino {precision}"] = (work / f"{precision}.bin").stat().st_size
    wanted = [v.split()[1] for v in variants if v.startswith("optimum")]
    if wanted:
        compressors = student.encoder.compressors
        del student
        sizes |= prepare_optimum(work, frames, wanted, compressors, feeds, step)
    step("prepared")
    (work / SIZES).write_text(json.dumps(sizes))


def prepare_optimum(
    work: Path, frames: int, precisions: list[str], compressors: Any, feeds: list[dict], step: Callable[[str], None]
) -> dict[str, int]:
    """Optimum's graphs with the same compressors behind them, as `linkedout-edge export --via optimum` makes them."""
    from linkedout_export.vlm import Shape, load_graphs
    from linkedout_export.vlm.bundle import graph_of
    from linkedout_export.vlm.exported import open_exported
    from linkedout_export.vlm.through_optimum import export_graphs, quantize_graphs

    floats, sizes = work / "optimum", {}
    step("optimum exports")
    export_graphs(work / HALF, floats)
    student = load_graphs(floats, Shape(frames=frames))
    student.encoder.compressors = compressors
    data = student.encoder.language_inputs(feeds) if "int4" in precisions else []
    for precision in precisions:
        step(f"optimum {precision}")
        encoder = student.encoder
        if precision != "fp32":
            quantize_graphs(floats, work / f"optimum-{precision}", precision, data)
            encoder = encoder.over(open_exported(work / f"optimum-{precision}"))
        ir = graph_of(encoder, precision)
        (work / f"optimum_{precision}.xml").write_bytes(ir.xml)
        (work / f"optimum_{precision}.bin").write_bytes(ir.weights)
        sizes[f"optimum {precision}"] = len(ir.xml) + len(ir.weights)
    return sizes


def child(variant: str, work: Path, frames: int, threads: int) -> dict:
    """Load one variant, run it once to warm up and once more."""
    import numpy as np

    feed = clips(frames)[0]
    library, _, precision = variant.partition(" ")
    if library in ("torch", "idle"):
        import torch
        from linkedout_export.vlm import load_vlm
        from linkedout_quant.model import dequantize, quantize
        from safetensors.torch import load_file

        torch.set_num_threads(threads)
        if library == "idle":
            import transformers  # noqa: F401

            return {"loading_mb": peak_mb(), "running_mb": peak_mb()}
        folder = work if variant == "torch fp32" else work / HALF
        student = load_vlm(folder, frames=frames, **TORCH[variant])
        student.encoder.compressors.load_state_dict(load_file(work / "compressors.safetensors.fitted"))
        given = [torch.from_numpy(x) for x in feed.values()]
        held = sum(t.numel() * t.element_size() for t in (*student.encoder.parameters(), *student.encoder.buffers()))

        @torch.inference_mode()
        def run() -> np.ndarray:
            return dequantize(*quantize(student.encoder(*given))).numpy()
    else:
        held = 0
        if library == "onnxruntime":
            import onnxruntime as ort

            options = ort.SessionOptions()
            options.intra_op_num_threads = threads
            session = ort.InferenceSession(work / f"{precision}.onnx", options, providers=["CPUExecutionProvider"])

            def call() -> list:
                return session.run(None, feed)
        else:
            import openvino as ov

            hints = {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads,
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            }
            name = f"{'optimum_' if library == 'optimum' else ''}{precision}.xml"
            compiled = ov.Core().compile_model(work / name, "CPU", hints)

            def call() -> list:
                found = compiled(feed)
                return [found["tokens"], found["scales"]]

        def run() -> np.ndarray:
            tokens, scales = call()
            return (tokens.astype(np.float32) * scales[..., None]).reshape(*tokens.shape[:2], -1)

    loading = peak_mb()
    forget_peak()
    run()
    start, busy = time.perf_counter(), time.process_time()
    got = run()
    took, busy = time.perf_counter() - start, time.process_time() - busy
    want = np.load(work / "tokens.npy")
    cosine = float((want * got).sum() / np.linalg.norm(want) / np.linalg.norm(got))
    return {
        "loading_mb": loading,
        "running_mb": peak_mb(),
        "seconds": took,
        "cpu_seconds": busy,
        "tokens": cosine,
        "held_bytes": held,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2, help="frames of a clip")
    parser.add_argument("--rounds", type=int, default=2, help="times that the variants take turns; medians are shown")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="keep checkpoint and graphs here (4 GB), and take them from here")
    parser.add_argument("--only", nargs="*", default=VARIANTS, choices=VARIANTS, metavar="VARIANT")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root / "tests"))  # the checkpoint's maker
    if args.child == "prepare":
        prepare(args.work, args.frames, args.only)
        return
    if args.child:
        print(json.dumps(child(args.child, args.work, args.frames, args.threads)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        shared = ["--work", str(work), "--frames", str(args.frames), "--threads", str(args.threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
        if not (work / SIZES).exists():
            command = [sys.executable, __file__, "--child", "prepare", *shared, "--only", *args.only]
            subprocess.run(command, check=True, env=environment)
        sizes = json.loads((work / SIZES).read_text())
        runs: dict[str, list[dict]] = {}
        for _ in range(args.rounds):
            for variant in ["idle", *args.only]:
                command = [sys.executable, __file__, "--child", variant, *shared]
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                if done.returncode:
                    print(f"{variant} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
                    continue
                runs.setdefault(variant, []).append(json.loads(done.stdout.splitlines()[-1]))
                print(variant, runs[variant][-1], file=sys.stderr, flush=True)
    table = {}
    for variant, rows in runs.items():
        table[variant] = {k: statistics.median(r[k] for r in rows) for k in rows[0]}
        table[variant]["size_mb"] = (sizes.get(variant) or table[variant].get("held_bytes", 0)) / 1e6
    base = table.get("torch bf16", {}).get("cpu_seconds")
    heads = {"weights MB": 10, "loading": 8, "running": 8, "seconds": 8, "CPU s": 7, "× bf16": 7, "tokens": 7}
    print(f"{'variant':18} " + " ".join(f"{h:>{w}}" for h, w in heads.items()))
    for variant, row in table.items():
        seconds = row.get("seconds")
        against = f"{row['cpu_seconds'] / base:7.2f}" if seconds and base else " " * 7
        shown = f"{seconds:8.2f} {row['cpu_seconds']:7.2f} {against} {row['tokens']:7.4f}" if seconds else ""
        print(f"{variant:18} {row['size_mb']:10.0f} {row['loading_mb']:8.0f} {row['running_mb']:8.0f} {shown}")
    print(json.dumps({"frames": args.frames, "threads": args.threads, "rounds": args.rounds, "variants": table}))


if __name__ == "__main__":
    main()
