"""From photos to tensors: what is declared, what comes out, what is refused."""

import contextlib
import io
import struct
import sys
import zlib

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, EdgeKitError
from edgekit_runtime.preprocess import apply, parse_preprocess, to_json
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

IMAGENET = {
    "kind": "image",
    "input": "x",
    "channels": "RGB",
    "resize": 256,
    "interpolation": "bicubic",
    "crop": 224,
    "scale": 1.0,
    "mean": [127, 127, 127],
    "std": [128, 128, 128],
    "layout": "NCHW",
    "dtype": "float32",
}


def plain(**changes):
    return parse_preprocess({"kind": "image", "input": "x", **changes})


def encoded(image, form="PNG", **more):
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_a_declaration_reads_back_the_same():
    assert parse_preprocess(to_json(parse_preprocess(IMAGENET))) == parse_preprocess(IMAGENET)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"meen": 1}, "did you mean mean"),
        ({"kind": "imgae"}, "did you mean image"),
        ({"interpolation": "bicubik"}, "did you mean bicubic"),
        ({"layout": "nchw"}, "did you mean NCHW"),
        ({"channels": "RGBA"}, "RGB"),
        ({"dtype": "float8"}, "float"),
        ({"kind": None}, 'kind = "image"'),
        ({"input": ""}, "input"),
        ({"resize": 0}, "height, width"),
        ({"resize": True}, "height, width"),
        ({"resize": 2.5}, "height, width"),
        ({"resize": [1, 2, 3]}, "height, width"),
        ({"resize": 10**9}, "height, width"),
        ({"crop": "224"}, "height, width"),
        ({"crop": 300}, "at least the crop"),
        ({"resize": [256, 200]}, "at least the crop"),
        ({"scale": "1/255"}, "1.0"),
        ({"scale": float("nan")}, "1.0"),
        ({"scale": 0}, "1.0"),
        ({"std": [1, 0, 1]}, "1.0"),
        ({"mean": [1, 2]}, "give 1 or 3"),
        ({"mean": [1, "2", 3]}, "1.0"),
        ({"layout": "HW"}, "GRAY"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_that_says_what_to_write(change, words):
    with pytest.raises(EdgeKitError) as caught:
        parse_preprocess(IMAGENET | change)
    assert words in caught.value.hint
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("raw", [None, [], "image"])
def test_a_declaration_that_is_no_table_is_refused(raw):
    with pytest.raises(EdgeKitError):
        parse_preprocess(raw)


def test_pixels_become_the_numbers_that_were_declared(photo):
    (name, value), *rest = apply(plain(mean=[127, 100, 90], std=[128, 2, 3], scale=0.5), photo).items()
    want = (photo.astype(np.float32) * 0.5 - [127, 100, 90]) / [128, 2, 3]
    assert (name, rest, value.dtype, value.shape) == ("x", [], np.float32, (1, 3, 5, 7))
    assert np.allclose(value[0].transpose(1, 2, 0), want, atol=1e-4)
    assert value.flags.c_contiguous


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("NCHW", (1, 3, 5, 7)), ("NHWC", (1, 5, 7, 3)), ("CHW", (3, 5, 7)), ("HWC", (5, 7, 3))],
)
def test_every_layout(photo, layout, shape):
    assert apply(plain(layout=layout), photo)["x"].shape == shape


@pytest.mark.parametrize(("layout", "shape"), [("HW", (5, 7)), ("NHW", (1, 5, 7)), ("NCHW", (1, 1, 5, 7))])
def test_gray_layouts(photo, layout, shape):
    assert apply(plain(layout=layout, channels="GRAY"), photo)["x"].shape == shape


def test_bgr_is_rgb_backwards(photo):
    assert np.array_equal(apply(plain(channels="BGR"), photo)["x"], apply(plain(), photo)["x"][:, ::-1])


def test_integer_tensors_round_and_saturate(photo):
    assert np.array_equal(apply(plain(dtype="uint8", layout="HWC"), photo)["x"], photo)
    low = apply(plain(dtype="int8", mean=128, layout="HWC"), photo)["x"]
    assert np.array_equal(low, (photo.astype(int) - 128).astype(np.int8))
    assert apply(plain(dtype="uint8", scale=10), photo)["x"].max() == 255


def test_resize_and_crop_are_torchvisions():
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 451, 3), dtype=np.uint8))
    value = apply(parse_preprocess(IMAGENET), encoded(wide))["x"]
    resized = wide.resize((int(256 * 451 / 300), 256), Image.Resampling.BICUBIC)
    top, left = round((256 - 224) / 2), round((resized.width - 224) / 2)
    want = (np.asarray(resized, np.float32)[top : top + 224, left : left + 224] - 127) / 128
    assert np.array_equal(value[0].transpose(1, 2, 0), want)


def test_bytes_a_path_and_pixels_give_the_same(photo, tmp_path):
    image = Image.fromarray(photo)
    image.save(tmp_path / "p.png")
    wanted = plain(resize=[4, 6], crop=[2, 3])
    answers = [
        apply(wanted, source)["x"] for source in (encoded(image), tmp_path / "p.png", str(tmp_path / "p.png"), photo)
    ]
    assert all(np.array_equal(answers[0], other) for other in answers[1:])
    assert answers[0].shape == (1, 3, 2, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", ["RGB", "GRAY"])
def test_every_kind_of_photo_is_taken(mode, channels):
    gray = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None], 6, 0)
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(gray).convert(mode)
    value = apply(plain(channels=channels, layout="HWC"), encoded(image, "TIFF" if mode == "CMYK" else "PNG"))["x"]
    assert value.shape == (6, 24, 3 if channels == "RGB" else 1)
    if mode not in ("1", "P"):
        assert np.abs(value[:, :, 0] - gray).max() <= 2


def test_see_through_colours_stay_what_they_are():
    pixels = np.full((2, 2, 4), (200, 100, 50, 0), np.uint8)
    assert apply(plain(layout="HWC"), encoded(Image.fromarray(pixels)))["x"][0, 0].tolist() == [200, 100, 50]


def test_a_photo_taken_sideways_is_set_upright():
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    value = apply(plain(channels="GRAY", layout="HW"), encoded(image, exif=exif))["x"]
    assert np.array_equal(value, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"not an image", encoded(Image.new("RGB", (50, 50)))[:60]])
def test_what_is_no_image_is_refused(data):
    with pytest.raises(BadRequest, match="not an image"):
        apply(plain(), data)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadRequest, match="no image at"):
        apply(plain(), tmp_path / "none.jpg")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    with pytest.raises(BadRequest, match="pixels"):
        apply(plain(), bomb)


def test_a_thin_strip_is_not_blown_up():
    with pytest.raises(BadRequest, match="too long"):
        apply(plain(resize=4096), encoded(Image.new("L", (30_000, 1))))


def test_a_photo_smaller_than_the_crop_is_refused(photo):
    with pytest.raises(BadRequest, match="smaller than the crop"):
        apply(plain(crop=6), photo)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2, 3)), np.zeros((2, 2, 5), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 2, 3), np.uint8)]
)
def test_pixels_that_are_no_image_are_refused(pixels):
    with pytest.raises(BadRequest, match="an image"):
        apply(plain(), pixels)


def test_pixels_that_need_no_resizing_need_no_pillow(photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert apply(plain(), photo)["x"].shape == (1, 3, 5, 7)
    assert apply(plain(), photo[:, :, 0])["x"].shape == (1, 3, 5, 7)
    with pytest.raises(EdgeKitError) as caught:
        apply(plain(resize=3), photo)
    assert "[image]" in caught.value.hint


def animated(form):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_moving_pictures_the_first_is_taken(form):
    value = apply(plain(layout="HWC"), animated(form))["x"]
    assert value.shape == (3, 4, 3)
    assert np.abs(value[0, 0] - [255, 0, 0]).max() <= 2


def small(form):
    return encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 8, 3), dtype=np.uint8)), form)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("whole", [small("JPEG"), small("PNG"), animated("GIF")], ids=["jpeg", "png", "gif"])
def test_a_photo_cut_off_anywhere_is_read_or_a_bad_request(whole):
    wanted = plain(layout="HWC")
    for end in range(len(whole)):
        with contextlib.suppress(BadRequest):
            assert apply(wanted, whole[:end])["x"].size


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@given(data=st.data())
@settings(max_examples=40)
def test_any_damage_to_a_photo_is_read_or_a_bad_request(form, data):
    damaged = bytearray(small(form))
    last = len(damaged) - 1
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, last), st.integers(0, 255)), max_size=6)):
        damaged[place] = byte
    with contextlib.suppress(BadRequest):
        assert apply(plain(resize=[4, 4]), bytes(damaged))["x"].shape == (1, 3, 4, 4)
