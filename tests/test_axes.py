"""Which directions of its features a compressor keeps in its tokens."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")

import numpy as np  # noqa: E402
from linkedout_quant.master import new_student  # noqa: E402
from linkedout_quant.recipes import load_recipe  # noqa: E402
from linkedout_quant.tokenizer import train_tokenizer  # noqa: E402
from linkedout_quant.training.axes import Moments, keep_axes, kept_axes  # noqa: E402
from linkedout_quant.training.clips import train_clips  # noqa: E402
from linkedout_quant.training.loop import new_accelerator  # noqa: E402

D, W = 4, 12


def correlated(rows, seed=0):
    """Features float64 [rows, W] whose variances differ, and that are no axes' own."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(W, W, generator=g, dtype=torch.float64) * torch.linspace(0.1, 2, W)[:, None]
    return torch.randn(rows, W, generator=g, dtype=torch.float64) @ mixing + 3.0


def products(x, weight):
    """Inner products of projected rows, to a scale of 1."""
    gram = (x @ weight.T) @ (x @ weight.T).T
    return gram / gram.diagonal().mean()


def test_alone_the_plain_metric_gives_the_principal_axes():
    x = correlated(500)
    centered = x - x.mean(0)
    weight = kept_axes(torch.randn(D, W, dtype=torch.float64), centered.T @ centered / len(x), plain=1.0)
    principal = torch.linalg.svd(centered, full_matrices=False)[2][:D]
    torch.testing.assert_close(products(centered, weight), products(centered, principal), rtol=1e-6, atol=1e-6)
    assert (centered @ weight.T).square().mean().item() == pytest.approx(1.0)


def test_alone_the_trained_metric_stays_as_it_was():
    x = correlated(500)
    centered, trained = x - x.mean(0), torch.randn(D, W, dtype=torch.float64)
    weight = kept_axes(trained, centered.T @ centered / len(x), plain=0.0)
    # Tokens are normalised: what moves all of their values together never counted.
    torch.testing.assert_close(products(centered, weight), products(centered, trained - trained.mean(0)))


def test_half_and_half_sees_what_training_dropped_and_what_it_found_in_little_variance():
    covariance = torch.diag(torch.tensor([4.0, *[0.01] * (W - 2), 0.04], dtype=torch.float64))
    trained = torch.zeros(2, W, dtype=torch.float64)
    trained[0, -1], trained[1, -1] = 1.0, -1.0  # only the last feature was asked about
    weight = kept_axes(trained, covariance)
    kept = torch.linalg.norm(weight @ covariance.sqrt(), dim=0)
    assert set(kept.argsort(descending=True)[:2].tolist()) == {0, W - 1}
    assert kept[1:-1].max() < 0.2 * kept[[0, -1]].min()


def test_moments_gather_what_all_rows_at_once_would_give():
    features = correlated(60).reshape(10, 2, 3, W) + torch.tensor([0.0, 5.0, -5.0])[:, None]  # [B, L, M, W]
    moments = Moments()
    for part in features.split(4):
        moments.add(part)
    mean, covariance = moments.mean_and_covariance()
    torch.testing.assert_close(mean, features.mean((0, 2)))
    centered = (features - features.mean(0)).transpose(0, 1).flatten(1, 2)  # the tokens' own offsets do not count
    torch.testing.assert_close(covariance, centered.transpose(1, 2) @ centered / centered.shape[1])
    with pytest.raises(ValueError, match="add features"):
        Moments().mean_and_covariance()


def test_what_tells_kinds_of_clips_apart_does_not_count():
    features = correlated(200).reshape(100, 1, 2, W)
    kinds = Moments(), Moments()
    kinds[0].add(features)
    kinds[1].add(features + 100.0)
    projection = torch.nn.Linear(W, D).double()
    alone = torch.nn.Linear(W, D).double()
    alone.load_state_dict(projection.state_dict())
    keep_axes([projection], [(0.6, kinds[0]), (0.3, kinds[1])])
    keep_axes([alone], [(1.0, kinds[0])])
    torch.testing.assert_close(projection.weight, alone.weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(alone(features).mean((0, 1, 2)), torch.zeros(D, dtype=torch.float64))


def test_after_clips_projections_change_and_nothing_else_and_resuming_does_it_once(tmp_path):
    recipe = load_recipe("smoke")
    config, clips = recipe.model, replace(recipe.clips, steps=1)
    tokenizer = train_tokenizer(["a red ball rolls"], config.vocab_size)

    def trained(run, axes):
        torch.manual_seed(0)
        encoder = new_student(config, tokenizer).encoder
        train_clips(run, config, clips, tokenizer, encoder, None, ["a ball"], new_accelerator(), axes=axes)
        return {k: v.numpy().copy() for k, v in encoder.state_dict().items()}

    plain, kept, resumed = trained(tmp_path / "a", 0), trained(tmp_path / "b", 3), trained(tmp_path / "b", 3)
    changed = {k for k in plain if not np.array_equal(plain[k], kept[k])}
    assert changed == {f"compressors.{i}.project.{p}" for i in range(config.layers) for p in ("weight", "bias")}
    for name in changed:
        np.testing.assert_allclose(resumed[name], kept[name], rtol=1e-5, atol=1e-6)
