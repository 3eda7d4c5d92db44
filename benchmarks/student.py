"""Does each part of the student earn its place? Tables with intervals, a figure of the gates, one JSON line at the end.

    python benchmarks/student.py models/base [--data FOLDER] [--only parts,prompts] [--figure gates.png]

Sections: parts (layers, gates, tokens, the LM), prompts, time, items (beside SASRec by item ids), captions (beside a
trigram model; needs --data, a folder with images/captions.csv), gates.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec
import torch
from linkedout_quant.evaluation import parts, probes
from linkedout_quant.master import load_student
from linkedout_quant.tokenizer import from_portable
from rich.table import Table

from linkedout_edge.cli import output, terminal

SECTIONS = ("parts", "prompts", "time", "items", "captions", "gates")


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    output.console().print(table)


def interval(pair: tuple[float, float], sign: str = "") -> str:
    return f"{pair[0]:{sign}.3f} – {pair[1]:{sign}.3f}"


def captions(student, tokenizer, data: Path) -> dict[str, float]:
    import numpy as np
    from linkedout_quant.distill import caption_texts, read_texts
    from linkedout_quant.evaluation.captions import caption_perplexity, trigram_perplexity
    from linkedout_quant.media import find_media, load_still
    from linkedout_quant.training.stills import CameraPath

    from linkedout_edge.decode.base import slot_centers

    config, rng = student.config, np.random.default_rng(0)
    held_back = [m for m in find_media([data / "images" / "captions.csv"]) if m.held_back]
    training = read_texts(data / "images" / "captions_text_only.csv", {m.path.name for m in held_back})
    times, clips, texts = np.array(slot_centers(config.frames, 1.0)), [], []
    for item in held_back:
        photo = load_still(item.path)
        clip = CameraPath.random(photo.shape, rng).frames(photo, times, config.frame_size)
        for text in item.captions:
            clips.append(clip)
            texts.append(text)
    other = [clips[(i + 5 * 7) % len(clips)] for i in range(len(clips))]
    return {
        "captions": len(texts),
        "LM that looks": caption_perplexity(student.encoder, tokenizer, clips, texts),
        "LM that looks at another photo": caption_perplexity(student.encoder, tokenizer, other, texts),
        "trigram": trigram_perplexity(tokenizer, caption_texts(training), texts, config.title_tokens),
    }


def gate_figure(gates: dict[str, list[float]], layers: list[str], out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(list(gates.values()), cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(layers)), layers)
    axes.set_yticks(range(len(gates)), list(gates))
    axes.set_ylabel("users who like …")
    figure.colorbar(image, label="mean gate")
    figure.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder with master.safetensors, config.json and tokenizer.json")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--figure", type=Path, default=None)
    arguments = parser.parse_args()
    terminal.prepare()
    wanted = arguments.only.split(",")
    if unknown := sorted(set(wanted) - set(SECTIONS)):
        parser.error(f"unknown sections {', '.join(unknown)}: choose from {', '.join(SECTIONS)}")
    torch.manual_seed(0)
    student = load_student(arguments.run)
    tokenizer = from_portable((arguments.run / "tokenizer.json").read_bytes())
    report: dict = {}
    if "parts" in wanted:
        rows = parts.compare_parts(student)
        report["parts"] = msgspec.to_builtins(rows)
        cells = [
            [
                r.name,
                f"{r.ndcg:.3f}",
                interval(r.interval),
                f"{r.difference:+.3f}",
                interval(r.difference_interval, "+"),
            ]
            for r in rows
        ]
        show("Parts, NDCG@10 on the exam", ["", "NDCG@10", "95 %", "difference", "95 %"], cells)
    for section, title, measure in (
        ("prompts", "Prompts, NDCG@10 of users who like …", lambda: probes.prompt_effect(student, tokenizer)),
        ("time", "Time, NDCG@10 of users who like …", lambda: probes.time_effect(student)),
        ("items", "Items, NDCG@10", lambda: probes.new_item_effect(student)),
    ):
        if section in wanted:
            found = measure()
            report[section] = msgspec.to_builtins(found)
            show(
                title,
                ["", "", "NDCG@10", "95 %"],
                [[m.what, m.users, f"{m.ndcg:.3f}", interval(m.interval)] for m in found],
            )
    if "captions" in wanted and arguments.data is None:
        output.note("captions: left out, they need --data")
    elif "captions" in wanted:
        report["captions"] = captions(student, tokenizer, arguments.data)
        show(
            "Captions of photos held back, perplexity a token",
            ["", ""],
            [[k, f"{v:.1f}"] for k, v in report["captions"].items()],
        )
    if "gates" in wanted:
        gates = probes.gates_by_kind(student)
        report["gates"] = gates
        layers = [f"layer {t}" if t else "input" for t in student.config.taps]
        show(
            "Mean gates, by taste",
            ["", *layers],
            [[k, *(f"{g:.2f}" for g in v)] for k, v in gates.items()],
        )
        if arguments.figure:
            gate_figure(gates, layers, arguments.figure)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
