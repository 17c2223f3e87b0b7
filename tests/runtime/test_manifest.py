"""The manifest: what is read back, and what is refused."""

import copy
import json

import pytest
from edgekit_runtime.bundle import MANIFEST, open_bundle
from edgekit_runtime.errors import BadBundle
from edgekit_runtime.manifest import parse, to_json

from tests.runtime.bundles import make_bundle


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return json.loads((make_bundle(tmp_path_factory.mktemp("m") / "b", inside=True) / MANIFEST).read_text())


def changed(raw, path, value):
    raw = copy.deepcopy(raw)
    *way, last = path
    place = raw
    for step in way:
        place = place[step]
    place[last] = value
    return raw


def test_what_is_written_reads_back_the_same(good):
    assert to_json(parse(good)) == good


def test_a_newer_schema_says_to_update(good):
    with pytest.raises(BadBundle) as caught:
        parse(changed(good, ["schema"], 2))
    assert "update" in caught.value.hint


@pytest.mark.parametrize("key", ["name", "version", "target"])
@pytest.mark.parametrize("word", ["", "../up", "a/b", "a b", ".hidden", "x" * 101, "é", "a\n", None, 3])
def test_names_that_could_not_be_a_folder_or_a_url_are_refused(good, key, word):
    with pytest.raises(BadBundle):
        parse(changed(good, [key], word))


@pytest.mark.parametrize("key", ["name", "format", "engine", "entry", "inputs", "outputs", "files"])
def test_a_missing_field_is_refused(good, key):
    with pytest.raises(BadBundle):
        parse({k: v for k, v in good.items() if k != key})


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "./model.onnx", "a//b", "", "a\\b", "a/", "a\0b"])
def test_a_file_outside_the_bundle_is_refused(good, path):
    with pytest.raises(BadBundle, match="outside the bundle"):
        parse(changed(good, ["files", path], {"sha256": "0" * 64, "size": 1}))


@pytest.fixture(scope="module")
def watched(good):
    """A manifest with a baseline and the float artifact."""
    entry = {"sha256": "0" * 64, "size": 1}
    shadow = {"engine": "onnx", "entry": "float/model.onnx", "inputs": good["inputs"], "outputs": good["outputs"]}
    files = {**good["files"], "baseline.json": entry, "float/model.onnx": entry}
    return {**good, "files": files, "baseline": "baseline.json", "shadow": shadow}


def test_a_baseline_and_a_float_shadow_read_back_the_same(watched):
    manifest = parse(watched)
    assert to_json(manifest) == watched
    assert (manifest.baseline, manifest.shadow.entry) == ("baseline.json", "float/model.onnx")
    assert manifest.shadow.inputs == manifest.inputs


def test_a_manifest_of_before_there_were_baselines_and_shadows_reads(good):
    manifest = parse({key: value for key, value in good.items() if key not in ("baseline", "shadow")})
    assert (manifest.baseline, manifest.shadow) == (None, None)


@pytest.mark.parametrize("key", [["entry"], ["labels"], ["golden", "file"], ["baseline"], ["shadow", "entry"]])
@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "not-listed", 5, ["model.onnx"]])
def test_what_the_manifest_points_to_must_be_among_its_files(watched, key, path):
    with pytest.raises(BadBundle):
        parse(changed(watched, key, path))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["shadow"], "float/model.onnx"),
        (["shadow"], ["onnx"]),
        (["shadow", "engine"], "tensorflow"),
        (["shadow", "engine"], ["onnx"]),
        (["shadow", "entry"], None),
        (["shadow", "inputs"], None),
        (["shadow", "inputs", 0, "spec"], 3),
        (["shadow", "outputs", 0, "inside", "dtype"], "float31"),
        (["shadow", "misspelt"], 1),
        (["baseline"], 3),
        (["baseline"], {}),
    ],
)
def test_an_impossible_baseline_or_shadow_is_refused(watched, path, value):
    with pytest.raises(BadBundle):
        parse(changed(watched, path, value))


def test_a_shadow_of_other_tensors_than_the_models_is_refused(watched):
    for side in ("inputs", "outputs"):
        port = copy.deepcopy(watched[side][0])
        port["spec"]["name"] = "other"
        for ports in ([], [port], watched[side] * 2):
            with pytest.raises(BadBundle):
                parse(changed(watched, ["shadow", side], ports))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["misspelt"], 1),
        (["engine"], "tensorflow"),
        (["entry"], None),
        (["inputs"], []),
        (["inputs"], "x"),
        (["inputs", 0, "order"], [0, 0, 1, 2]),
        (["inputs", 0, "order"], [0, 1]),
        (["inputs", 0, "spec", "dtype"], "float31"),
        (["inputs", 0, "spec", "shape"], ["n"]),
        (["inputs", 0, "spec", "shape"], [-1, 3, 2, 2]),
        (["inputs", 0, "inside", "scale"], 0),
        (["inputs", 0, "inside", "scale"], float("nan")),
        (["inputs", 0, "inside", "zero_point"], None),
        (["options"], {"threads": "4"}),
        (["options"], {"threads": 0}),
        (["options"], {"precision": "float8"}),
        (["options"], {"cores": 4}),
        (["options"], {"spin": "yes"}),
        (["golden", "count"], -1),
        (["golden", "tolerance"], float("nan")),
        (["golden", "tolerance"], float("inf")),
        (["golden", "tolerance"], -0.1),
        (["golden", "tolerance"], None),
        (["evidence"], [1]),
        (["preprocess"], "image"),
        (["precision"], 8),
        (["files"], ["model.onnx"]),
    ],
)
def test_an_impossible_value_is_refused(good, path, value):
    with pytest.raises(BadBundle):
        parse(changed(good, path, value))


def test_two_tensors_of_one_name_are_refused(good):
    with pytest.raises(BadBundle, match="twice"):
        parse(changed(good, ["outputs"], good["outputs"] * 2))


@pytest.mark.parametrize("raw", [None, [], "x", 3])
def test_a_manifest_that_is_no_object_is_refused(raw):
    with pytest.raises(BadBundle):
        parse(raw)


def test_a_manifest_nested_without_end_is_refused(tmp_path):
    folder = make_bundle(tmp_path / "b")
    (folder / MANIFEST).write_text("[" * 200_000)
    with pytest.raises(BadBundle):
        open_bundle(folder)
