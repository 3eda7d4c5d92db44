"""Metrics against numbers worked out by hand."""

import numpy as np
import pytest

pytest.importorskip("torchmetrics", reason="the workstation half is not installed")

from linkedout_quant.evaluation.baselines import color_histograms, latest_cosine, mean_cosine, popularity, unit_rows
from linkedout_quant.evaluation.metrics import bootstrap_interval, mean_metrics, user_metrics


def test_metrics_of_a_ranking_worked_out_by_hand():
    relevant = np.zeros(30, bool)
    relevant[[1, 6]] = True  # at ranks 2 and 7
    row = user_metrics(-np.arange(30.0), relevant)
    ideal = 1 + 1 / np.log2(3)
    assert row["hr@5"] == 1
    assert row["mrr@10"] == pytest.approx(0.5)
    assert row["ndcg@5"] == pytest.approx((1 / np.log2(3)) / ideal, abs=1e-6)
    assert row["ndcg@10"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(8)) / ideal, abs=1e-6)
    assert row["auc"] == pytest.approx(1 - (1 + 5) / (2 * 28), abs=1e-6)


def test_ties_keep_the_order_of_input():
    relevant = np.array([True] + [False] * 9)
    assert user_metrics(np.zeros(10), relevant)["ndcg@5"] == 1
    assert user_metrics(np.zeros(10), relevant[::-1])["hr@5"] == 0


def test_means_and_intervals():
    assert mean_metrics([{"a": 1.0}, {"a": 0.0}]) == {"a": 0.5}
    low, high = bootstrap_interval([0.0, 1.0] * 50)
    assert 0.35 < low < 0.5 < high < 0.65


def test_baselines_prefer_what_is_alike():
    red, blue = np.zeros((2, 3, 8, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 200
    units = color_histograms([red, blue, red + 1, blue + 1])
    assert np.argmax(mean_cosine(units, np.array([0]), np.array([1, 2, 3]))) == 1
    rows = unit_rows(np.array([[1.0, 0], [0, 1], [1, 0.1], [0.1, 1]]))
    assert np.argmax(latest_cosine(rows, np.array([0, 1]), np.array([2, 3]))) == 1
    assert popularity([[0, 2], np.array([2])], 4).tolist() == [1, 0, 2, 0]
