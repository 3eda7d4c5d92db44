"""Gates by evidence against even gates: what is compared, and what the command says of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torchmetrics", reason="the workstation half is not installed")

from linkedout_quant.evaluation.gates import DEPTHS, compare_gates, drawn_users, taste_of, without_gates

from linkedout_edge import microworld
from linkedout_edge.cli.main import cli
from linkedout_edge.microworld import FACETS, KINDS, UserPool, one_hot, random_attributes
from linkedout_edge.rank.taste import Space


@pytest.fixture(scope="module")
def attributes():
    rng = np.random.default_rng(3)
    return [random_attributes(rng) for _ in range(400)]


@pytest.fixture(scope="module")
def values(attributes):
    """Three layers [400, 3, K], each of which knows the facets of one of `DEPTHS` and nothing else."""
    ends = dict(zip(FACETS, np.cumsum([len(v) for v in FACETS.values()]), strict=True))
    known = np.zeros((3, sum(len(v) for v in FACETS.values())))
    for layer, kind in enumerate(DEPTHS):
        for facet in KINDS[kind]:
            known[layer, ends[facet] - len(FACETS[facet]) : ends[facet]] = 1
    return np.stack([one_hot(a) for a in attributes])[:, None] * known


def test_without_gates_every_layer_counts_as_the_prior_says(attributes, values):
    prior = np.array([0.5, 0.2, 0.3])
    space = Space.of(values, prior)
    joined, one_layer = without_gates(values, space)
    (user,) = drawn_users(UserPool(attributes), "objects", 1, seed=0)
    even = taste_of(user, joined, one_layer)
    assert even.gates.tolist() == [1.0]
    centered = values - space.mean
    kernel = np.einsum("ilf,jlf,l->ij", centered, centered, prior / space.size)
    np.testing.assert_allclose(np.einsum("ilf,jlf->ij", joined, joined), kernel, atol=1e-9)
    personal = taste_of(user, values, space).gates
    assert personal.argmax() == DEPTHS.index("objects")
    assert not np.allclose(personal, prior, atol=0.05)


def test_gates_find_the_layer_that_knows_what_a_user_likes(attributes, values):
    reports = compare_gates(values, attributes, users=40, seed=1)
    assert [r.kind for r in reports] == list(DEPTHS)
    for layer, r in enumerate(reports):
        assert r.difference == pytest.approx(r.by_evidence - r.even)
        assert r.difference_interval[0] > 0
        assert np.argmax(r.gates) == layer
        assert sum(r.gates) == pytest.approx(1)
    assert compare_gates(values, attributes, users=40, seed=1) == reports
    assert compare_gates(values, attributes, users=40, seed=2) != reports


def test_of_layers_that_know_the_same_none_is_better(attributes, values):
    alike = np.repeat(values.sum(1, keepdims=True), 3, 1)
    for r in compare_gates(alike, attributes, users=10, seed=1):
        assert r.difference == pytest.approx(0, abs=1e-9)
        assert r.gates == pytest.approx([1 / 3] * 3)


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["evaluate", "--gates", *map(str, args)])


def test_the_command_prints_a_row_for_each_depth(tiny_bundle, monkeypatch):
    small = microworld.make_exam(users_per_length=1, n_candidates=12, pool_size=140)
    monkeypatch.setattr(microworld, "make_exam", lambda **kwargs: small)
    args = ("--bundle", tiny_bundle, "--users", 3)
    done = run(*args)
    assert done.exit_code == 0, done.output
    assert "8 watched videos, 3 users who like …: NDCG@10" in done.stdout
    assert "mean gates: looks 0." in done.stdout
    reports = json.loads(run(*args, "--json").stdout)
    assert [r["kind"] for r in reports] == ["looks", "objects", "motion"]
    for r in reports:
        assert r["difference_interval"][0] <= r["difference"] <= r["difference_interval"][1]
        assert len(r["gates"]) == 3


def test_users_of_other_questions_are_refused(tiny_bundle):
    done = run("--bundle", tiny_bundle, "--taste", "one")
    assert done.exit_code == 2
    assert "--gates asks users of its own" in done.stderr
