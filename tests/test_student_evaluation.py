"""What is said of a student's parts: baselines learn what they can, tables are complete, figures are drawn."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")

from linkedout_quant.evaluation import parts, probes  # noqa: E402
from linkedout_quant.evaluation.captions import caption_perplexity, trigram_perplexity  # noqa: E402
from linkedout_quant.evaluation.sasrec import LENGTH, padded, train_sasrec  # noqa: E402
from linkedout_quant.master import new_student, save_master  # noqa: E402
from linkedout_quant.tokenizer import portable, train_tokenizer  # noqa: E402

from linkedout_edge.config import ModelConfig  # noqa: E402
from linkedout_edge.microworld import UserPool, draw_taste, random_attributes  # noqa: E402

TEXTS = ["a red ball rolls", "a blue car rolls", "a red car stands", "two dogs run along a beach"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 300)


@pytest.fixture(scope="module")
def student(tokenizer):
    torch.manual_seed(0)
    return new_student(ModelConfig.tiny(), tokenizer).eval()


def test_sasrec_learns_what_follows_what_and_nothing_of_new_items():
    rng = np.random.default_rng(0)
    histories = [[(int(start) + i) % 10 for i in range(12)] for start in rng.integers(0, 10, 200)]
    model = train_sasrec(histories, 12, steps=150)
    for latest in range(10):
        scores = model.scores([(latest - 1) % 10, latest], np.arange(12))
        assert scores.argmax() == (latest + 1) % 10
        assert scores[10:].max() < scores.max()


def test_histories_are_padded_in_front_and_cut_at_the_old_end():
    rows = padded([[1, 2], list(range(LENGTH + 3))], items=99)
    assert rows[0].tolist() == [99] * (LENGTH - 2) + [1, 2]
    assert rows[1].tolist() == list(range(3, LENGTH + 3))


def test_a_trigram_model_is_surer_of_what_it_knows(tokenizer):
    known = trigram_perplexity(tokenizer, TEXTS, TEXTS[:1], 12)
    unknown = trigram_perplexity(tokenizer, TEXTS, ["beach dogs two stands"], 12)
    assert 1 < known < unknown


def test_an_untrained_student_finds_all_words_alike(student, tokenizer):
    rng = np.random.default_rng(0)
    clips = list(rng.integers(0, 256, (3, 8, 32, 32, 3), dtype=np.uint8))
    perplexity = caption_perplexity(student.encoder, tokenizer, clips, TEXTS[:3])
    vocabulary = student.config.vocab_size
    assert 0.5 * vocabulary < perplexity < 2 * vocabulary


def test_every_variant_is_judged_on_the_same_users(student, monkeypatch):
    monkeypatch.setattr(parts, "COMPRESSOR_STEPS", 2)
    rows = parts.compare_parts(student, pool=240, users_per_length=2)
    names = [r.name for r in rows]
    assert names[0].startswith("all layers, gates by evidence")
    assert rows[0].difference == 0
    assert {"the LM replaced by identity", "mean of the layers, no gates", "M = 1", "M = 4", "last layer alone"} <= set(
        names
    )
    assert all(0 <= r.ndcg <= 1 and r.interval[0] <= r.ndcg <= r.interval[1] for r in rows)


def test_users_of_new_items_watched_the_old_ones():
    rng = np.random.default_rng(0)
    pool, new = UserPool([random_attributes(rng) for _ in range(400)]), np.arange(400) >= 250
    user = pool.draw(rng, n_events=8, n_candidates=50, new=new)
    assert not new[user.history].any()
    assert new[user.candidates].all()
    assert draw_taste(rng, "palette").kind == "palette"


def test_gates_are_shares(student):
    gates = probes.gates_by_kind(student, users=2)
    assert set(gates) == {"scene", "object", "palette", "motion", "camera", "cuts", "text"}
    for shares in gates.values():
        assert len(shares) == student.config.layers
        assert sum(shares) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_the_benchmark_prints_tables_a_figure_and_json(student, tokenizer, tmp_path):
    import msgspec

    (tmp_path / "config.json").write_bytes(msgspec.json.encode(student.config))
    (tmp_path / "tokenizer.json").write_bytes(portable(tokenizer))
    save_master(tmp_path, student)
    script = Path(__file__).parents[1] / "benchmarks" / "student.py"
    figure = tmp_path / "gates.png"
    command = [sys.executable, str(script), str(tmp_path), "--only", "gates", "--figure", str(figure)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(json.loads(done.stdout.splitlines()[-1])) == {"gates"}
    assert figure.stat().st_size > 2000
    wrong = subprocess.run([*command[:3], "--only", "gaits"], capture_output=True, text=True, timeout=600, check=False)
    assert "unknown sections gaits" in wrong.stderr
