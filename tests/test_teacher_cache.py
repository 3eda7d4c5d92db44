"""The cache of teacher features: nothing is looked at twice, nothing damaged is believed."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the workstation half is not installed")

from linkedout_quant.teachers import CachedTeacher, TeacherError, TeacherFeatures

from linkedout_edge.errors import ArgumentError


class Fake:
    """Features that follow the clip's mean and the title's length; counts what it is shown."""

    name, layer_names = "fake", ("low", "high")

    def __init__(self, fingerprint="a" * 64, factor=1.0):
        self.fingerprint, self.factor, self.seen = fingerprint, factor, 0

    def extract_features(self, clips, titles=None):
        self.seen += len(clips)
        titles = titles or [None] * len(clips)
        value = np.array([c.mean() + 10 * len(t or "") for c, t in zip(clips, titles, strict=True)], np.float32)
        value = value[:, None] * self.factor
        layers = (np.tile(value[:, None], (1, 5, 3)), np.tile(value[:, None], (1, 5, 4)))
        return TeacherFeatures(layers=layers, pooled=np.tile(value, (1, 6)), language=value)


def clip(value):
    return np.full((2, 4, 4, 3), value, np.uint8)


def test_what_was_seen_is_not_looked_at_again(tmp_path):
    teacher = Fake()
    with CachedTeacher(teacher, tmp_path) as cached:
        first = cached.extract_features([clip(1), clip(2), clip(1)])
        assert teacher.seen == 2  # a clip that comes twice is looked at once
        cached.extract_features([clip(2), clip(3)], ["a title", None])
        assert teacher.seen == 4  # the title is part of what was seen
        assert len(cached) == 4
    again = CachedTeacher(other := Fake(), tmp_path)
    got = again.extract_features([clip(2), clip(1), clip(2)], [None, None, "a title"])
    assert other.seen == 0
    assert [x.shape for x in got.layers] == [(3, 5, 3), (3, 5, 4)]
    assert got.pooled[:, 0].tolist() == [2, 1, 72]
    assert all(x.dtype == np.float32 for x in (*got.layers, got.pooled, got.language))
    np.testing.assert_array_equal(got.layers[1][0], first.layers[1][1])
    assert again.nbytes == sum(p.stat().st_size for p in tmp_path.rglob("*.safetensors")) > 0


def test_keys_of_the_caller_spare_hashing_and_titles_still_count(tmp_path):
    teacher = Fake()
    with CachedTeacher(teacher, tmp_path) as cached:
        cached.extract_features([clip(1), clip(2)], keys=["a.jpg crop 1", "a.jpg crop 2"])
        cached.extract_features([clip(9)], keys=["a.jpg crop 2"])  # believed
        assert teacher.seen == 2
        cached.extract_features([clip(2)], ["t"], keys=["a.jpg crop 2"])
        assert teacher.seen == 3
        assert "a.jpg crop 1" in cached
        assert "a.jpg crop 3" not in cached
        with pytest.raises(ArgumentError, match="2 clips, 2 titles, 1 keys"):
            cached.extract_features([clip(1), clip(2)], keys=["x"])


def test_values_beyond_float16_are_kept_and_first_and_second_look_agree(tmp_path):
    with CachedTeacher(Fake(factor=1 / 3), tmp_path) as cached:
        small = cached.extract_features([clip(1)])
        large = CachedTeacher(Fake(factor=1e6), tmp_path)._teacher
        cached._teacher = large
        big = cached.extract_features([clip(200)])
        assert big.pooled[0, 0] == 2e8
    again = CachedTeacher(Fake(), tmp_path).extract_features([clip(200), clip(1)])
    assert again.pooled[:, 0].tolist() == [2e8, small.pooled[0, 0]]


def test_teachers_do_not_mix(tmp_path):
    with CachedTeacher(Fake("a" * 64), tmp_path) as one:
        one.extract_features([clip(1)])
    with CachedTeacher(Fake("b" * 64, factor=2), tmp_path) as two:
        assert two.extract_features([clip(1)]).pooled[0, 0] == 2
    with pytest.raises(TeacherError, match="another teacher"):
        CachedTeacher(Fake("a" * 16 + "c" * 48), tmp_path)


def test_a_crash_loses_at_most_what_was_not_flushed(tmp_path):
    cached = CachedTeacher(Fake(), tmp_path)
    cached.extract_features([clip(i) for i in range(70)])  # over a shard: written
    cached.extract_features([clip(100)])  # not yet
    (cached.folder / "half.safetensors.1.part").write_bytes(b"torn")  # what a crash while writing leaves
    again = CachedTeacher(teacher := Fake(), tmp_path)
    assert len(again) == 70
    again.extract_features([clip(100), clip(3)])
    assert teacher.seen == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "nonsense"])
def test_a_damaged_shard_is_set_aside_and_looked_at_again(tmp_path, damage):
    with CachedTeacher(Fake(), tmp_path) as cached:
        cached.extract_features([clip(1)])
        cached.flush()
        cached.extract_features([clip(2)])
    bad, _ = sorted(cached.folder.glob("*.safetensors"))
    data = bytearray(bad.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    bad.write_bytes({"flip": data, "cut": data[: len(data) // 2], "nonsense": b"nonsense"}[damage])
    teacher = Fake()

    def resume():
        again = CachedTeacher(teacher, tmp_path)
        return again, again.extract_features([clip(1), clip(2)])

    with pytest.warns(UserWarning, match="set aside"):
        again, got = resume()
    assert got.pooled[:, 0].tolist() == [1, 2]
    assert teacher.seen == 1
    assert bad.with_suffix(".damaged").exists()
    again.close()
    assert len(CachedTeacher(Fake(), tmp_path)) == 2


def test_features_without_the_model(tmp_path):
    with pytest.raises(TeacherError, match="found none"):
        CachedTeacher.stored(tmp_path)
    with CachedTeacher(Fake(), tmp_path) as cached:
        cached.extract_features([clip(1)])
    stored = CachedTeacher.stored(tmp_path)
    assert (stored.name, stored.layer_names, stored.fingerprint) == ("fake", ("low", "high"), "a" * 64)
    assert stored.extract_features([clip(1)]).pooled[0, 0] == 1
    with pytest.raises(TeacherError, match="1 clips have no stored features of fake"):
        stored.extract_features([clip(1), clip(2)])
