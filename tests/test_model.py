"""The student in torch: the properties that the rest of the product leans on."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the workstation half is not installed")

import msgspec  # noqa: E402
from linkedout_quant.master import spread_positions  # noqa: E402
from linkedout_quant.model import Student, dequantize, quantize  # noqa: E402
from linkedout_quant.model.tower import VisionTower  # noqa: E402

from linkedout_edge.config import ModelConfig  # noqa: E402


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(3)
    student = Student(ModelConfig.tiny()).eval()
    for compressor in student.encoder.compressors:
        torch.nn.init.normal_(compressor.gain.weight, std=0.3)
    return student


def inputs(config, batch=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    side = config.frame_size
    frames = torch.randint(0, 256, (batch, config.frames, side, side, 3), dtype=torch.uint8, generator=g)
    title_ids = torch.randint(2, config.vocab_size, (batch, config.title_tokens), dtype=torch.int32, generator=g)
    return [
        frames,
        torch.ones(batch, config.frames, dtype=torch.bool),
        title_ids,
        torch.zeros_like(title_ids, dtype=torch.bool),
    ]


def test_shapes_and_normalized_tokens(student):
    c = student.config
    with torch.no_grad():
        tokens = student.encoder(*inputs(c))
    assert tokens.shape == (2, c.layers, c.tokens_per_layer, c.token_width)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros_like(tokens[..., 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.std(-1, unbiased=False), torch.ones_like(tokens[..., 0]), atol=1e-2, rtol=0)


def test_masked_frames_and_titles_change_nothing(student):
    c = student.config
    frames, mask, ids, no_title = inputs(c)
    mask[:, 3:] = False
    with torch.no_grad():
        before = student.encoder(frames, mask, ids, no_title)
        after = student.encoder(torch.cat([frames[:, :3], 255 - frames[:, 3:]], 1), mask, ids.flip(1), no_title)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_titles_and_frame_order_matter(student):
    frames, mask, ids, no_title = inputs(student.config)
    with torch.no_grad():
        plain = student.encoder(frames, mask, ids, no_title)
        titled = student.encoder(frames, mask, ids, ~no_title)
        backwards = student.encoder(frames.flip(1), mask, ids, no_title)
    assert (plain - titled).abs().max() > 1e-3
    assert (plain - backwards).abs().max() > 1e-3


def test_the_language_model_is_causal(student):
    c = student.config
    frames, mask, ids, no_title = inputs(c)
    changed = ids.clone()
    changed[:, -1] = ids[:, -1] % 100 + 5
    with torch.no_grad():
        a = student.encoder.states(frames, mask, ids, ~no_title)[-1]
        b = student.encoder.states(frames, mask, changed, ~no_title)[-1]
    last_title = c.frames * c.grid**2 + c.title_tokens - 1
    torch.testing.assert_close(a[:, :last_title], b[:, :last_title])
    assert (a[:, last_title:] - b[:, last_title:]).abs().max() > 1e-4


def test_what_the_prompt_asks_for_decides_what_counts(student):
    c = student.config
    arguments = inputs(c)
    asked = student.encoder.prompt_ids.clone()
    with torch.no_grad():
        seen = student.encoder.states(*arguments)
        before = student.encoder.features(seen, arguments[1])
        try:
            student.encoder.prompt_ids += 7
            other = student.encoder.states(*arguments)
            after = student.encoder.features(other, arguments[1])
        finally:
            student.encoder.prompt_ids.copy_(asked)
    torch.testing.assert_close(seen[-1][:, : -c.prompt_tokens], other[-1][:, : -c.prompt_tokens])
    ratio = (after / before)[before > 0.05]
    assert (ratio - 1).abs().median() > 0.1


def test_frames_that_are_left_out_are_like_masked_ones(student):
    c = student.config
    frames, mask, ids, no_title = inputs(c)
    mask[:, 3:] = False
    encoder = student.encoder
    with torch.no_grad():
        visual = encoder.tower(frames[:, :3].flatten(0, 1)).unflatten(0, (2, 3))
        states = encoder.lm(visual, mask[:, :3], ids, no_title, encoder.prompt_ids)
        short = encoder.tokens(encoder.features(states, mask[:, :3]))
        whole = encoder(frames, mask, ids, no_title)
    torch.testing.assert_close(short, whole, atol=1e-5, rtol=0)


def test_quantizing_costs_at_most_half_a_step():
    x = torch.randn(5, 3, 2, 16)
    tokens, scales = quantize(x)
    assert tokens.dtype == torch.int8
    assert scales.shape == (5, 3, 2)
    error = (dequantize(tokens, scales) - x.flatten(-2)).abs().unflatten(-1, (2, 16))
    assert (error <= scales.unsqueeze(-1) * 0.5 + 1e-6).all()


def test_the_default_keeps_its_budget():
    import json

    from click.testing import CliRunner
    from linkedout_quant.cli import cost

    counts = json.loads(CliRunner().invoke(cost, ["--json"], catch_exceptions=False).output)
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    stated = f"{counts['parameters'] / 1e6:.1f} M parameters and needs {counts['macs'] / 1e9:.1f} GMAC"
    assert stated in readme
    assert counts["parameters"] <= 12e6
    assert 0.5e9 < counts["macs"] <= 3.5e9
    assert counts["payload_bytes"] <= 1024


@pytest.mark.parametrize("size", [32, 40, 56])
def test_a_frame_becomes_the_same_number_of_visual_tokens_whatever_its_size(student, size):
    """Squares that are pooled touch where the map is a multiple of the grid; elsewhere they overlap."""
    tower = VisionTower(msgspec.structs.replace(student.config, frame_size=size)).eval()
    tower.load_state_dict(student.encoder.tower.state_dict())
    halves = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    halves[:, :, size // 2 :] = 255
    with torch.no_grad():
        tokens = tower(halves)
        mirrored = tower(halves.flip(2))
    assert tokens.shape == (1, student.config.grid**2, student.config.lm_width)
    assert (tokens - mirrored).abs().max() > 1e-3, "left and right are told apart"


def test_positions_keep_their_place_in_time_when_there_are_fewer_frames():
    times = (torch.arange(8) + 0.5) / 8  # of the centers of eight slots, in a video of length 1
    positions = torch.stack([times, 1 - times], -1)[:, None]
    torch.testing.assert_close(spread_positions(positions, 8), positions)
    for frames in (6, 4, 1):
        wanted = (torch.arange(frames) + 0.5) / frames
        torch.testing.assert_close(spread_positions(positions, frames)[:, 0, 0], wanted)
    assert spread_positions(positions, 12).shape == (12, 1, 2)
