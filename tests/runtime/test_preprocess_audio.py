"""From recordings to tensors: every kind of wav, every rate, every layout; what is declared, what is refused."""

import contextlib
import struct

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, EdgeKitError
from edgekit_runtime.preprocess import apply, parse_preprocess, to_json
from edgekit_runtime.preprocess.mel import log_mel
from edgekit_runtime.preprocess.resampling import ratio, resampled
from edgekit_runtime.preprocess.wav import GUID, read_wav
from hypothesis import given
from hypothesis import strategies as st

PLAIN = {"kind": "audio", "input": "x", "rate": 16000}
MEL = {**PLAIN, "features": "log-mel", "layout": "FT"}
MOST = {("i", 8): 128, ("i", 16): 2**15, ("i", 24): 2**23, ("i", 32): 2**31}


def plain(**changes):
    return parse_preprocess(PLAIN | changes)


def chunk(label, body):
    return label + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def wav(values, rate=16000, kind="i", width=16, extensible=False, before=b"", **header):
    """A wav file of `values` (time[, channels]) from -1 to 1; `header` overrides what its header says."""
    values = np.asarray(values, np.float64)
    channels = 1 if values.ndim == 1 else values.shape[1]
    said = {"coding": {"i": 1, "f": 3}[kind], "channels": channels, "bits": width, "block": channels * width // 8}
    coding, channels, bits, block = (said | header).values()
    fmt = struct.pack(
        "<HHIIHH", 0xFFFE if extensible else coding, channels, rate, min(rate * block, 2**32 - 1), block, bits
    )
    if extensible:
        fmt += struct.pack("<HHIH", 22, bits, 0, coding) + GUID
    body = before + chunk(b"fmt ", fmt) + chunk(b"data", encoded(values, kind, width))
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def encoded(values, kind, bits):
    if kind == "f":
        return values.astype(f"<f{bits // 8}").tobytes()
    whole = np.clip(np.rint(values * MOST["i", bits]), -MOST["i", bits], MOST["i", bits] - 1).astype("<i8")
    if bits == 8:
        return (whole + 128).astype(np.uint8).tobytes()
    return np.ascontiguousarray(whole.reshape(-1, 1).view(np.uint8)[:, : bits // 8]).tobytes()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("coding", "bits"), [("i", 8), ("i", 16), ("i", 24), ("i", 32), ("f", 32), ("f", 64)])
def test_every_kind_of_wav_is_read(coding, bits, channels, extensible):
    values = noise(50, channels)
    read = read_wav(wav(values, 44100, coding, bits, extensible, before=chunk(b"LIST", b"odd")), "it")
    assert (read.rate, read.values.dtype, read.values.shape) == (44100, np.float32, (50, channels))
    assert np.abs(read.values - values).max() <= max(2.0 ** -(bits - 1) if coding == "i" else 0, 1e-7)


def test_the_standard_library_writes_what_we_read(tmp_path):
    import wave

    values = np.rint(noise(100, 2) * 32767).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(values.tobytes())
    for source in (tmp_path / "a.wav", str(tmp_path / "a.wav"), (tmp_path / "a.wav").read_bytes()):
        assert np.allclose(apply(plain(layout="T"), source)["x"], values.mean(1) / 32768, atol=1e-6)


def test_a_recording_from_a_pipe_goes_up_to_its_end():
    data = bytearray(wav(noise(10)))
    data[40:44] = b"\xff" * 4
    assert len(read_wav(bytes(data) + b"\1", "it").values) == 10


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [(44100, 16000), (48000, 16000), (8000, 16000), (11025, 16000), (16000, 44100), (96000, 8000), (44101, 16000)],
)
@pytest.mark.parametrize("count", [1, 7, 5000])
def test_resampling_is_scipys(rate, wanted, count):
    from scipy.signal import resample_poly

    values = noise(count).astype(np.float32)
    ours, theirs = resampled(values, rate, wanted), resample_poly(values.astype(np.float64), *ratio(rate, wanted))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-5


def test_what_the_lower_rate_cannot_hold_is_filtered_out():
    time = np.arange(48000) / 48000
    low, high = (resampled(np.sin(2 * np.pi * f * time).astype(np.float32), 48000, 16000) for f in (1000, 11000))
    assert np.allclose(low[100:-100], np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)[100:-100], atol=1e-3)
    assert np.abs(high[100:-100]).max() < 2e-3


@pytest.mark.parametrize("rate", [101, 12347, 44101, 767_999])
def test_a_rate_without_common_divisor_costs_no_huge_filter(rate):
    up, down = ratio(rate, 16000)
    assert max(up, down) <= 8192
    assert abs(up / down / (16000 / rate) - 1) < 1e-5


def test_channels_are_mixed_or_one_is_taken():
    data = wav(np.stack([np.full(8, 0.5), np.full(8, -0.25)], 1))
    assert np.allclose(apply(plain(), data)["x"], 0.125, atol=1e-4)
    assert np.allclose(apply(plain(channel=1), data)["x"], -0.25, atol=1e-4)
    with pytest.raises(BadRequest, match="2 channel"):
        apply(plain(channel=2), data)


@pytest.mark.parametrize(
    ("layout", "shape"), [("T", (9,)), ("NT", (1, 9)), ("NCT", (1, 1, 9)), ("NTC", (1, 9, 1)), ("TC", (9, 1))]
)
def test_every_layout_of_samples(layout, shape):
    assert apply(plain(layout=layout), wav(noise(9)))["x"].shape == shape


@pytest.mark.parametrize("layout", ["FT", "TF", "NFT", "NTF", "NCFT", "NCTF", "NFTC", "NTFC"])
def test_every_layout_of_features(layout):
    value = apply(parse_preprocess(MEL | {"layout": layout, "n_mels": 8}), noise(1600))["x"]
    assert value.shape == tuple({"N": 1, "C": 1, "F": 8, "T": 11}[axis] for axis in layout)
    bands = value.squeeze() if layout.index("F") < layout.index("T") else value.squeeze().T
    assert np.array_equal(bands, apply(parse_preprocess(MEL | {"n_mels": 8}), noise(1600))["x"])


@pytest.mark.parametrize(
    ("align", "long", "short"),
    [("start", [1, 2, 3], [1, 2, 0, 0]), ("centre", [2, 3, 4], [0, 1, 2, 0]), ("end", [3, 4, 5], [0, 0, 1, 2])],
)
def test_a_sound_is_cut_or_filled_up_to_so_many_samples(align, long, short):
    cut = apply(plain(samples=3, align=align, layout="T"), np.arange(1.0, 6))["x"]
    filled = apply(plain(samples=4, align=align, layout="T"), np.arange(1.0, 3))["x"]
    assert (cut.tolist(), filled.tolist()) == (long, short)


def test_samples_become_the_numbers_that_were_declared():
    values = np.array([-1.0, -0.5, 0, 0.99997])
    assert np.allclose(apply(plain(scale=2, mean=1, std=4), values)["x"], (values * 2 - 1) / 4)
    whole = apply(plain(scale=32768, dtype="int16"), wav(values))["x"]
    assert (whole.dtype, whole.tolist()) == (np.int16, [[-32768, -16384, 0, 32767]])


def hiss():
    t = np.arange(4000) / 16000
    whole = 0.4 * np.sin(2 * np.pi * 440 * t) + 0.3 * np.sin(2 * np.pi * 3000 * t**1.1)
    return (whole + 0.01 * np.cos(7 * np.arange(4000) ** 2 / 11)).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "mean", "some"),
    [
        # librosa 0.11: log(max(melspectrogram(n_fft=512, hop_length=160, win_length=400, n_mels=20, htk=True,
        # norm=None, pad_mode="reflect"), 1e-10)), which are torchaudio's defaults
        ({"n_mels": 20}, 0.0027975,
         [[4.7144, -4.3836, -0.344], [2.6628, -3.2794, -0.6111], [-0.0199, -1.9613, -1.9353]]),
        # power_to_db(melspectrogram(n_fft=400, hop_length=160, n_mels=16, fmin=50, fmax=7000, pad_mode="reflect"))
        ({"n_mels": 16, "fft": 400, "mel": "slaney", "norm": "slaney", "f_min": 50, "f_max": 7000, "log": "db",
          "top": 80}, -25.539131,
         [[2.6132, -37.896, -21.5001], [-13.8171, -40.4103, -34.2115], [-32.9262, -38.1258, -36.5611]]),
        # of magnitudes, with the clamping and scaling of Whisper
        ({"n_mels": 16, "fft": 400, "mel": "slaney", "norm": "slaney", "power": 1, "log": "log10", "top": 8,
          "mean": -4, "std": 4}, 0.4478125,
         [[0.8123, 0.3109, 0.5282], [0.6286, 0.2706, 0.3557], [0.367, 0.3042, 0.3317]]),
    ],
    ids=["htk", "slaney", "whisper"],
)  # fmt: skip
def test_features_are_librosas(changes, mean, some):
    value = apply(parse_preprocess(MEL | changes), hiss())["x"]
    assert value.shape == (changes["n_mels"], 26)
    assert value.dtype == np.float32
    assert np.allclose(value[np.ix_((0, 5, 15), (0, 7, 24))], some, atol=1e-4)
    assert abs(value.mean() - mean) < 2e-5


def test_whole_frames_are_tensorflows():
    wanted = parse_preprocess(MEL | {"frames": "whole", "n_mels": 1, "f_min": 0, "offset": 0.5, "power": 1}).features
    values = hiss()[:900]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [values[start : start + 400] * window for start in (0, 160, 320, 480)]
    top = 2595 * np.log10(1 + 8000 / 700)
    centre = 700 * (10 ** (top / 2 / 2595) - 1)
    bins = np.arange(257) * 16000 / 512
    triangle = np.minimum(bins / centre, (8000 - bins) / (8000 - centre))
    want = [np.log(max(np.abs(np.fft.rfft(frame, 512)) @ triangle, 1e-10) + 0.5) for frame in frames]
    assert np.allclose(log_mel(values, wanted, 16000), [want], atol=1e-5)


def test_each_band_has_its_own_mean():
    plainly, shifted = (
        apply(parse_preprocess(MEL | {"n_mels": 3} | more), hiss())["x"] for more in ({}, {"mean": [1, 2, 3], "std": 2})
    )
    assert np.allclose(shifted, (plainly - np.array([[1], [2], [3]])) / 2, atol=1e-5)


@pytest.mark.parametrize("raw", [PLAIN, PLAIN | {"samples": 8000, "channel": 0}, MEL | {"top": 80, "mean": 3}])
def test_a_declaration_reads_back_the_same(raw):
    assert parse_preprocess(to_json(parse_preprocess(raw))) == parse_preprocess(raw)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": None}, "rate = 16000"),
        ({"rate": 50}, "rate"),
        ({"rate": "16k"}, "rate"),
        ({"samples": 0}, "samples"),
        ({"samples": 2**30}, "samples"),
        ({"sampels": 3}, "did you mean samples"),
        ({"channel": -1}, "channel"),
        ({"align": "middle"}, "centre"),
        ({"layout": "NCHW"}, "did you mean"),
        ({"layout": "NFT"}, "NCT"),
        ({"n_mels": 64}, 'features = "log-mel"'),
        ({"scale": 0}, "1.0"),
        ({"std": [1, 0]}, "give 1"),
        ({"features": "mfcc"}, "log-mel"),
        ({"features": "log-mel", "layout": "NT"}, "NFT"),
        ({"features": "log-mel", "window": 1024}, "fft = 1024"),
        ({"features": "log-mel", "f_max": 9000}, "8000"),
        ({"features": "log-mel", "f_min": 8000}, "8000"),
        ({"features": "log-mel", "floor": 0}, "1.0"),
        ({"features": "log-mel", "offset": -1}, "floor"),
        ({"features": "log-mel", "mean": [1, 2]}, "give 1 or 64"),
        ({"features": "log-mel", "samples": 100}, "samples = 512"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_write(change, words):
    with pytest.raises(EdgeKitError) as caught:
        plain(**change)
    assert words in caught.value.hint


BAD = {
    "nothing": b"",
    "no wav": b"not a wav file, by no means",
    "big-endian": wav([0.5]).replace(b"RIFF", b"RIFX"),
    "no samples": wav(np.zeros(0)),
    "no chunks": wav([0.5])[:12],
    "no data": wav([0.5])[:36],
    "data before form": b"RIFF\0\0\0\0WAVE" + chunk(b"data", b"ab"),
    "a short form": b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", b"abcd") + chunk(b"data", b"ab"),
    "cut off": wav(noise(100))[:-3],
    "more announced": wav([0.5])[:40] + struct.pack("<I", 2**31) + b"ab",
    "half a sample": wav([0.5])[:40] + struct.pack("<I", 3) + b"abc\0",
    "no channels": wav([0.5], channels=0, block=0),
    "blocks that do not fit": wav([0.5], block=3),
    "channels that do not fit": wav([0.5], channels=65535),
    "no rate": wav([0.5], rate=0),
    "a rate beyond measure": wav([0.5], rate=2**32 - 1),
    "12 bits": wav([0.5], bits=12),
    "mu-law": wav([0.5], coding=7, bits=8, block=1),
    "a half float": wav([0.5], coding=3),
    "NaN": wav([0.5, np.nan], kind="f", width=32),
    "infinity": wav([0.5, np.inf], kind="f", width=64),
    "a float64 beyond float32": wav([1e300], kind="f", width=64),
    "beyond all measure": wav([3e38] * 9, kind="f", width=32),
    "an unknown extensible form": wav([0.5], extensible=True).replace(GUID, GUID[::-1]),
    "a thousand empty chunks": b"RIFF\0\0\0\0WAVE" + chunk(b"junk", b"") * 1001 + wav([0.5])[12:],
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_is_refused(name):
    with pytest.raises(BadRequest):
        apply(plain(scale=1e3), BAD[name])


def test_a_sound_beyond_memory_is_refused_before_it_is_made():
    loud = wav(np.zeros(3000, np.float32), rate=100)
    with pytest.raises(BadRequest, match="too long"):
        apply(plain(rate=768_000), loud)
    many = wav([0.5], bits=8, block=1)[:40] + struct.pack("<I", 2**24 + 2) + bytes(2**24 + 2)
    with pytest.raises(BadRequest, match="more than"):
        read_wav(many, "it")
    with pytest.raises(BadRequest, match="too long"):
        apply(parse_preprocess(MEL | {"hop": 1, "n_mels": 4096, "fft": 512}), np.zeros(5000))


def test_a_sound_too_short_for_a_frame_is_refused():
    with pytest.raises(BadRequest, match="too short"):
        apply(parse_preprocess(MEL), np.zeros(256))
    assert apply(parse_preprocess(MEL), np.zeros(257))["x"].shape == (64, 2)


@pytest.mark.parametrize("values", [np.zeros(3, np.int16), np.zeros(0), np.zeros((2, 2, 2)), np.array([np.nan])])
def test_samples_that_are_no_sound_are_refused(values):
    with pytest.raises(BadRequest, match="sound"):
        apply(plain(), values)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(BadRequest, match="no sound at"):
            apply(plain(), path)


WHOLE = wav(noise(20, 2), kind="f", width=32, extensible=True, before=chunk(b"fact", b"abcd"))


@given(st.data())
def test_any_damage_is_read_or_a_bad_request(data):
    damaged = bytearray(WHOLE)
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6)):
        damaged[place] = byte
    damaged = damaged[: data.draw(st.integers(0, len(WHOLE)))] if data.draw(st.booleans()) else damaged
    for wanted in (plain(), parse_preprocess(MEL | {"fft": 8, "window": 8, "hop": 4, "n_mels": 2})):
        try:
            value = apply(wanted, bytes(damaged))["x"]
        except BadRequest:
            continue
        assert value.size
        assert np.isfinite(value).all()


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_a_bad_request(data):
    for whole in (data, b"RIFF\0\0\0\0WAVE" + data, WHOLE[:60] + data):
        with contextlib.suppress(BadRequest):
            assert apply(plain(), whole)["x"].size
