"""The command `edgekit-runtime`, as a person runs it."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
from edgekit_runtime.__main__ import main
from PIL import Image

from tests.runtime.bundles import LABELS, make_bundle, some, truth


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("m") / "b")


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "p.jpg")
    return str(tmp_path / "p.jpg")


def test_a_photo_goes_in_and_labels_come_out(bundle, photo, capsys):
    assert main(["run", str(bundle), "--input", photo, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].split()[0] in LABELS
    assert len({len(line) for line in lines}) == 1


def test_arrays_go_in_and_json_comes_out(bundle, tmp_path, capsys):
    np.save(tmp_path / "x.npy", some(2))
    assert main(["run", str(bundle), "--input", str(tmp_path / "x.npy"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outputs"][0]["shape"] == [2, 4]
    assert np.allclose(told["outputs"][0]["data"], truth(some(2)).ravel(), atol=1e-5)
    assert told["top"][0]["label"] == LABELS[int(truth(some(2))[0].argmax())]


def test_a_page_tells_what_is_in_the_bundle(bundle, capsys):
    assert main(["inspect", str(bundle)]) == 0
    page = capsys.readouterr().out
    assert "provenance  none" in page
    for words in (
        "tiny 1",
        "onnx, float32",
        "x: float32[?, 3, 2, 2]",
        "4 words",
        "3 answer(s)",
        "metric: top-1",
        "value: 0.91",
    ):
        assert words in page
    assert main(["inspect", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"


def test_a_selftest_says_so_and_fails_by_its_exit_code(bundle, tmp_path, capsys):
    assert main(["selftest", str(bundle)]) == 0
    assert capsys.readouterr().out.startswith("passed: 3 recorded")
    folder = make_bundle(tmp_path / "b")
    raw = json.loads((folder / "manifest.json").read_text())
    raw["inputs"][0]["order"] = [0, 1, 3, 2]
    (folder / "manifest.json").write_text(json.dumps(raw))
    assert main(["selftest", str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is False
    assert told["worst"] > 0.01


def test_an_error_is_one_line_and_a_hint(bundle, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((1, 9)))
    for given in (["run", "nowhere", "--input", "x"], ["run", str(bundle), "--input", str(tmp_path / "x.npy")]):
        assert main(given) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
    assert main(["run", str(bundle), "--input", "missing.jpg"]) == 1
    assert "hint: give --input" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["fly"],
        ["run"],
        ["run", "b", "--input", "x", "--top", "0"],
        ["serve", "b", "--port", "70000"],
        ["serve", "b", "--max-body", "-1"],
        ["serve", "b", "--batch-preferred", "4,x"],
    ],
)
def test_wrong_usage_exits_2(given, capsys):
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2


def test_what_a_file_says_cannot_drive_the_terminal(tmp_path, capsys):
    folder = make_bundle(tmp_path / "b")
    raw = json.loads((folder / "manifest.json").read_text())
    raw["evidence"] = {"note": "\x1b[2Jgone"}
    (folder / "manifest.json").write_text(json.dumps(raw))
    assert main(["inspect", str(folder)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def python(*given, **more):
    return subprocess.run([sys.executable, *given], capture_output=True, text=True, timeout=60, check=False, **more)


def test_python_dash_m_is_quiet_but_for_its_answer(tmp_path, photo):
    done = python("-m", "edgekit_runtime", "run", str(make_bundle(tmp_path / "b", "tflite")), "--input", photo)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] in LABELS


def test_detect_prints_a_profile_of_this_machine():
    done = python("-m", "edgekit_runtime", "detect")
    assert (done.returncode, done.stderr) == (0, "")
    assert "arch" in done.stdout


def test_a_reader_that_leaves_is_no_error(bundle):
    command = f"{sys.executable} -m edgekit_runtime inspect {bundle} --json | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "given", "extra"),
    [
        ("onnxruntime", ["selftest"], "[onnx]"),
        ("httptools", ["serve"], "[http]"),
        ("PIL", ["run", "--input", "PHOTO"], "[image]"),
    ],
)
def test_a_missing_library_names_the_extra_to_install(bundle, photo, missing, given, extra):
    words = [given[0], str(bundle), *(photo if word == "PHOTO" else word for word in given[1:])]
    gone = "import sys; sys.modules[{!r}] = sys.modules['h11'] = None\n"
    code = gone + "from edgekit_runtime.__main__ import main\nsys.exit(main({!r}))"
    done = python("-c", code.format(missing, words))
    assert done.returncode == 1
    assert extra in done.stderr
    assert "Traceback" not in done.stderr


def test_a_start_that_is_refused_leaves_no_state_folder(bundle, tmp_path):
    words = ("serve", bundle, "--state", tmp_path / "lib" / "state", "--keep-samples", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for more, why in (
            (("--port", taken.getsockname()[1]), "cannot listen on"),
            (("--port", 0, "--remote-write", "ftp://nowhere"), "is not one of a web server"),
        ):
            assert why in python("-m", "edgekit_runtime", *map(str, (*words, *more))).stderr
            assert not (tmp_path / "lib").exists()


def test_help_names_the_command_that_was_called(capsys):
    with pytest.raises(SystemExit):
        main(["inspect", "--help"], "edgekit")
    assert capsys.readouterr().out.startswith("usage: edgekit inspect ")
