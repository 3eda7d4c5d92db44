"""What needs the photos, captions and clips beside the checkout; skipped, saying so, where they are absent."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from linkedout_edge import Recommender
from linkedout_edge.bundle import open_bundle
from linkedout_edge.text import Tokenizer

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"no shared data at {DATA}")


@pytest.fixture(scope="module")
def videos():
    return sorted(str(p) for p in (DATA / "videos").glob("*.mp4"))


def test_the_runtime_tokenises_every_caption_like_the_library():
    library = pytest.importorskip("linkedout_quant.tokenizer")
    with open_bundle("int8") as bundle:
        data = bundle.tokenizer()
    ours, theirs = Tokenizer.from_json(data), library.from_portable(data)
    texts = []
    for name in ("captions.csv", "captions_text_only.csv"):
        with (DATA / "images" / name).open() as f:
            texts += [row["caption"] for row in csv.DictReader(f)]
    assert len(texts) > 40_000
    for text, encoded in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.encode(text) == encoded.ids, text


@pytest.mark.slow
def test_training_on_photos_runs_through(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the teacher's runtime is not installed")
    from linkedout_quant.master import load_student
    from linkedout_quant.training.recipe import Recipe, train

    from linkedout_edge.config import ModelConfig

    train(tmp_path, DATA, ModelConfig.tiny(), Recipe.smoke())
    assert load_student(tmp_path).config == ModelConfig.tiny()


def command_line(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "linkedout_edge.cli.main", "rank", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [r["id"] for r in json.loads(done.stdout)["ranked"]]


def test_real_clips_rank_alike_by_every_way(videos):
    """Twice on the command line, in Python, and with OpenVINO: one order."""
    history, candidates = videos[:2], videos[2:]
    arguments = ["--history", *history, "--candidates", *candidates]
    with Recommender.load("int8") as rec:
        ranking = rec.rank(history, candidates)
    assert not ranking.failed
    assert sorted(r.id for r in ranking) == sorted(candidates)
    assert command_line(*arguments) == ranking.ids
    assert command_line(*arguments) == ranking.ids
    pytest.importorskip("openvino")
    assert command_line(*arguments, "--backend", "openvino") == ranking.ids


def test_both_decoders_agree_on_real_clips(videos):
    pytest.importorskip("av")
    orders = []
    for decoder in ("pyav", "opencv"):
        with Recommender.load("int8", decoder=decoder) as rec:
            orders.append(rec.rank(videos[:2], videos[2:]).ids)
    assert orders[0] == orders[1]
