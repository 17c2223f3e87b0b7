"""The page in a real Chromium, over a real server, its real status and real models.

Refuses nothing; what no small model can bring about (a hot machine, a hostile name) is put into the real status."""

import contextlib
import gzip
import io
import json
import re
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.answer import top
from edgekit_runtime.bundle import MANIFEST, describe
from edgekit_runtime.drift.words import words
from edgekit_runtime.preprocess import apply, parse_preprocess
from edgekit_runtime.routes.page import FOLDER, wants_page
from edgekit_runtime.served import Served
from edgekit_runtime.service import Service, open_service
from edgekit_runtime.serving import Guard
from edgekit_runtime.tensors import TensorSpec
from edgekit_runtime.tokens import Tokens, add_token, revoke_token
from edgekit_runtime.watching import Watching
from PIL import Image

from tests.chromium import CHROMIUM, Open, Page, chromium
from tests.runtime.bundles import LABELS, PREPROCESS, make_bundle, some, truth
from tests.runtime.live import Live, live, pair, two

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]
HOSTILE = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>'
READY = "document.querySelector('#all')?.hidden === false"
FOCUSABLE = "a[href], button, input, textarea, select, summary, audio[controls], [tabindex='0']"
COSTS = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
Alter = Callable[[Callable[[dict[str, Any]], Any]], None]


@pytest.fixture(scope="module")
def browser() -> Iterator[Open]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def browse(browser: Open) -> Iterator[Open]:
    """Opens tabs, and closes them after the test."""
    pages: list[Page] = []

    def opened(url: str, **more: Any) -> Page:
        pages.append(browser(url, **more))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the record of what it was built on: photos of noise."""
    folder = make_bundle(tmp_path_factory.mktemp("tiny") / "tiny")
    from edgekit_runtime.drift import Recorder, reader, to_json

    wanted = parse_preprocess(PREPROCESS)
    read = reader((TensorSpec("x", "float32", (None, 3, 2, 2)),), (TensorSpec("y", "float32", (None, 4)),), wanted, 4)
    recorder = Recorder()
    for seed in range(400):
        x = some(1, seed)
        for reading in read({"x": x}, {"y": truth(x)}):
            recorder.add(reading)
    (folder / "baseline.json").write_text(json.dumps(to_json(recorder.baseline())))
    raw = json.loads((folder / MANIFEST).read_text())
    about = describe(folder / "baseline.json")
    raw["files"]["baseline.json"] = {"sha256": about.sha256, "size": about.size}
    (folder / MANIFEST).write_text(json.dumps(raw | {"baseline": "baseline.json"}))
    return folder


@pytest.fixture
def server(tiny: Path) -> Iterator[Live]:
    with live(open_service([tiny])) as found:
        yield found


@pytest.fixture
def alter(monkeypatch: pytest.MonkeyPatch) -> Alter:
    """Change what the real status says before it goes out."""
    told = Watching.status

    def change(act: Callable[[dict[str, Any]], Any]) -> None:
        def status(watching: Watching) -> dict[str, Any]:
            found = told(watching)
            act(found)
            return found

        monkeypatch.setattr(Watching, "status", status)

    return change


def photo(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def labelled(x: Any) -> str:
    return top({"y": truth(x)}, LABELS, 1)[0][0]


def ask(server: Live, x: Any) -> None:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    assert server.ask("/v2/models/tiny/infer", json.dumps({"inputs": [tensor]}).encode())[0] == 200


def said(page: Page, selector: str) -> str:
    """What an element says, whether or not a line may be broken there."""
    return page.text(selector).replace("\xa0", " ")


def served(kind: str, labels: tuple[str, ...], **more: Any) -> Service:
    """A model that takes sounds or texts, and knows the first of its labels."""
    wanted = parse_preprocess({"kind": kind, "input": "x", **more})
    x = TensorSpec("x", "float32" if kind == "audio" else "object", (None, None))
    scores = np.array([[5.0, *[0.0] * (len(labels) - 1)]], np.float32)
    y = TensorSpec("y", "float32", (None, len(labels)))
    return Service([Served("heard", "1", "onnx", (x,), (y,), lambda feeds: {"y": scores}, labels, wanted)])


def test_it_says_what_is_running_and_what_was_proven(browse: Open, server: Live) -> None:
    page = browse(server.at["http"] + "/")
    assert page.wait(f"{READY} && document.querySelector('#headline').textContent") == "tiny: all is well"
    assert page.text("#model-name") == "tiny"
    assert page.text("#model-version") == "Version 1"
    assert "onnx" in page.text("#model-facts")
    assert "top-1 91.0 % (95 % interval 83.8 to 95.2 %, n = 100)" in said(page, "#evidence")
    assert "GB" in page.text("#machine-tiles")
    assert page.troubles() == []


def test_its_numbers_move_with_real_requests(browse: Open, server: Live) -> None:
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    assert not re.search(r"[1-9]", page.text("#p50"))
    end = threading.Event()

    def keep_asking() -> None:
        while not end.wait(0.02):
            ask(server, some())

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        assert page.wait("parseFloat(document.querySelector('#rate').textContent) > 3")
        assert page.wait("/[µm]s/.test(document.querySelector('#p99').textContent)")
        assert page.wait("document.querySelector('.line.rate').getAttribute('d').split('L').length > 2")
        first = int(re.sub(r"\D", "", page.text("#outcomes td")))
        page.wait(f"parseInt(document.querySelector('#outcomes td').textContent.replace(/\\D/g, '')) > {first}")
    finally:
        end.set()
        asking.join()
    assert page.troubles() == []


def test_a_photo_is_uploaded_and_its_label_is_read(browse: Open, server: Live, tmp_path: Path) -> None:
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    for seed in range(4):
        file = photo(tmp_path / f"{seed}.png", seed)
        x = apply(parse_preprocess(PREPROCESS), file)["x"]
        page.upload("#file", file)
        page.wait("document.querySelector('#answer .best')")
        page.wait(f"document.querySelector('#answer .best').textContent === {json.dumps(labelled(x))}")
    assert len(page.get("[...document.querySelectorAll('.scores li')].map(li => li.textContent)")) == 4
    assert "from here to the device" in page.text("#answer")
    assert page.get("document.querySelector('img.shown').naturalWidth") == 2
    assert page.get("document.querySelector('#answer').getAttribute('aria-live')") == "polite"
    (tmp_path / "no.png").write_bytes(b"no photo at all")
    page.upload("#file", tmp_path / "no.png")
    page.wait("document.querySelector('#answer .failed')")
    assert [one for one in page.troubles() if "400" not in one] == []


def test_a_photo_is_dropped(browse: Open, server: Live, tmp_path: Path) -> None:
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    bytes_of = list(photo(tmp_path / "one.png").read_bytes())
    page.get(
        f"(() => {{ const data = new DataTransfer(); data.items.add(new File([new Uint8Array({bytes_of})], 'one.png',"
        " {type: 'image/png'})); document.querySelector('.drop').dispatchEvent(new DragEvent('drop',"
        " {dataTransfer: data, bubbles: true, cancelable: true})); })()"
    )
    x = apply(parse_preprocess(PREPROCESS), tmp_path / "one.png")["x"]
    page.wait(f"document.querySelector('#answer .best')?.textContent === {json.dumps(labelled(x))}")


def test_a_drift_alarm_appears(browse: Open, server: Live) -> None:
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    end = time.monotonic() + 60
    while page.get("document.querySelector('#top').dataset.state") != "alarm":
        assert time.monotonic() < end, page.text("#drift")
        for _ in range(20):
            ask(server, np.ones((1, 3, 2, 2), np.float32))
            time.sleep(0.002)
    assert "drift alarm" in page.text("#headline")
    assert "drift alarm" in page.text("#announced")
    assert "Show" in page.text("#troubles li[data-state=alarm]")
    assert page.get("document.querySelectorAll('#features li[data-state=alarm] .bars .now').length") > 0
    assert "Shifted" in page.text("#features")
    assert page.get("document.title").startswith("ALARM")
    assert page.troubles() == []


def feature(name: str, ks: float, alarm: bool = False, limit: float = 0.3) -> dict[str, Any]:
    return {"name": name, "words": words(name), "psi": ks, "ks": ks, "limit": limit, "alarm": alarm, "edges": [0.1],
            "labels": [], "baseline": [0.5, 0.5], "now": [0.5, 0.5], "n": 100}  # fmt: skip


def drifted(status: dict[str, Any], *features: dict[str, Any]) -> None:
    alarm = any(one["alarm"] for one in features)
    status["models"][0]["drift"] = {"alarm": alarm, "since_ms": None, "n": 700, "features": list(features)}


@pytest.mark.parametrize(
    ("why", "told"), [("no baseline", "holds no record of what"), ("switched off", "started with --no-drift")]
)
def test_a_model_whose_drift_nobody_watches_is_not_all_well(
    browse: Open, server: Live, alter: Alter, why: str, told: str
) -> None:
    alter(lambda status: status["models"][0].update(drift=None, unwatched=why))
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    assert page.text("#headline") == "tiny: running; drift is not watched"
    assert page.get("document.querySelector('#top').dataset.state") == "open"
    good, border = page.get(
        "(s => [s(document.documentElement).getPropertyValue('--good').trim(),"
        " s(document.querySelector('#top')).getPropertyValue('--state').trim()])(getComputedStyle)"
    )
    assert good != border
    assert told in page.text("#troubles")
    assert told in page.text("#drift-said")
    assert not page.get("document.querySelector('#features').checkVisibility()")
    assert page.troubles() == []


def test_a_bundle_without_a_baseline_is_not_all_well(browse: Open, tmp_path: Path) -> None:
    with live(open_service([make_bundle(tmp_path / "tiny")])) as server:
        page = browse(server.at["http"] + "/")
        page.wait(READY)
        assert page.text("#headline") == "tiny: running; drift is not watched"
        assert "A build with --data records it" in page.text("#drift-said")


def test_where_one_of_several_is_not_watched_it_is_named(browse: Open, server: Live, alter: Alter) -> None:
    more = {"name": "other", "drift": None, "unwatched": "no baseline"}
    alter(lambda status: status.update(models=[*status["models"], status["models"][0] | more]))
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    assert page.text("#headline") == "2 models: running; drift is not watched of other"
    assert page.get("document.querySelectorAll('#models-rows tr')[1].lastChild.textContent") == "not watched"


def test_what_shifted_stands_first_and_what_says_least_last(browse: Open, server: Live, alter: Alter) -> None:
    quiet = [feature(name, 0.05) for name in ("not_finite", "contrast", "class", "confidence")]
    loud = [feature("brightness", 0.25), feature("dark", 0.2, alarm=True), feature("sharpness", 0.7, alarm=True)]
    alter(lambda status: drifted(status, *quiet, *loud))
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    heads = page.get("[...document.querySelectorAll('#features h3 span:first-child')].map(s => s.textContent)")
    names = ("sharpness", "dark", "brightness", "class", "confidence", "contrast", "not_finite")
    assert heads == [words(name) for name in names]
    assert "out of focus" in page.text("#features li")
    assert "ahead of the second" in page.text("#features")
    assert "KS" not in page.text("#features")
    assert "Kolmogorov-Smirnov" in page.text("#drift-table")


def test_what_is_back_below_its_limit_is_not_said_to_be_shifted(browse: Open, server: Live, alter: Alter) -> None:
    alter(lambda status: drifted(status, feature("sharpness", 0.2, alarm=True), feature("dark", 0.1)))
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    first = "#features li:first-child"
    assert page.text(f"{first} .tag") == "Coming back"
    assert page.get(f"document.querySelector('{first}').dataset.state") == "watch"
    assert "Was shifted; now 20 % apart, below the alarm at 30 %" in said(page, first)
    assert "sharpness of the image was shifted, coming back" in page.text("#drift-said")
    assert "sharpness of the image was shifted, coming back" in page.text("#troubles")
    assert "Shifted" not in page.text("#features")
    assert page.get("document.querySelector('#top').dataset.state") == "alarm", "the alarm still stands"


def test_before_anything_came_no_feature_is_said_to_be_as_built(browse: Open, server: Live, alter: Alter) -> None:
    alter(lambda status: drifted(status, feature("sharpness", 0) | {"now": [0, 0], "n": 0}))
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    assert page.text("#features .tag") == "No samples yet"


FIELD = {"n": 240, "accuracy": 0.909, "low": 0.8812, "high": 0.9341}


def test_the_builds_accuracy_stands_beside_that_of_the_field(browse: Open, server: Live, alter: Alter) -> None:
    found = {**FIELD, "built": {"value": 0.91, "n": 100}}
    alter(lambda status: status["models"][0].update(quality=found))
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    told = said(page, "#quality-said")
    assert "In the field 90.9 % (95 % interval 88.1 to 93.4 %, n = 240 answers whose true label came back)" in told
    assert "At the build 91.0 % (95 % interval 83.8 to 95.2 %, n = 100)" in told
    assert "Share of right answers, on an axis from 80 % to 100 %" in told
    assert page.get("[...document.querySelectorAll('.ranges > span')].map(s => s.textContent)") == [
        "In the field", "At the build",
    ]  # fmt: skip
    assert page.get("document.querySelectorAll('.whiskers').length") == 2


@pytest.mark.parametrize(
    ("metric", "told"),
    [("cosine", "cosine similarity 0.978 (95 % interval 0.976 to 0.98, n = 144)"),
     ("agreement", "share of same answers 97.8 % (95 % interval 97.6 to 98.0 %, n = 144)"),
     ("top5", "top-5 accuracy 97.8 % (95 % interval 93.9 to 99.2 %, n = 144)"),
     ("mine:score", "mine:score 0.978 (n = 144)")],
)  # fmt: skip
def test_what_the_build_measured_otherwise_is_not_held_against_labels(
    browse: Open, server: Live, alter: Alter, metric: str, told: str
) -> None:
    evidence = {"metric": metric, "value": 0.978, "reference": 1, "drop": 0.022, "low": 0.02, "high": 0.024, "n": 144}
    found = {**FIELD, "built": None}
    alter(lambda status: status["models"][0].update(quality=found, evidence=evidence))
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    assert f"The build measured {told}, which cannot be compared with labels." in said(page, "#quality-said")
    assert told in said(page, "#evidence")
    assert page.get("document.querySelectorAll('.whiskers').length") == 1
    assert "At the build" not in said(page, "#quality-said")


def test_everything_is_reached_with_the_keyboard(browse: Open, server: Live, alter: Alter) -> None:
    alter(lambda status: status.update(models=[*status["models"], status["models"][0] | {"name": "other"}]))
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    page.get(
        f"window.every = () => [...document.querySelectorAll({json.dumps(FOCUSABLE)})].filter(e => e.checkVisibility())"
    )
    seen, plain, steps = set(), [], page.get("every().length") + 5
    for _ in range(steps):
        page.press("Tab")
        here = "document.activeElement"
        at, outline = page.get(f"[every().indexOf({here}), getComputedStyle({here}).outlineStyle]")
        seen.add(at)
        plain += [at] if outline == "none" and at >= 0 else []
    assert set(range(steps - 5)) <= seen
    assert plain == []
    page.get("document.querySelectorAll('#models button')[1].focus()")
    page.press("Enter")
    page.wait("document.querySelector('#model-name').textContent === 'other'")
    assert page.get("document.activeElement.textContent") == "other"
    assert page.get("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_it_is_told_to_who_does_not_see_it(browse: Open, server: Live) -> None:
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    found = [(one["role"]["value"], one.get("name", {}).get("value", "")) for one in tree if not one["ignored"]]
    roles = [role for role, _ in found]
    assert {"banner", "main", "contentinfo", "status"} <= set(roles)
    assert next(name for role, name in found if role == "heading") == "tiny: all is well"
    controls = ("button", "link", "textbox", "image", "region", "table")
    assert [(role, name) for role, name in found if role in controls and not name] == []
    assert page.get("[...document.querySelectorAll('table')].every(t => t.querySelector('thead th'))")
    assert page.get("document.querySelectorAll('input:not([type=hidden])').length") == page.get(
        "[...document.querySelectorAll('input')].filter(i => i.labels.length).length"
    )


def test_what_others_wrote_stays_text(browse: Open, alter: Alter) -> None:
    def act(status: dict[str, Any]) -> None:
        status["host"] = status["machine"]["gpus"] = HOSTILE
        status["machine"]["gpus"] = [{"name": HOSTILE, "utilization": 0.5}]
        status["machine"]["power"] = {HOSTILE: 3.0}
        status["errors"] = [{"when_ms": status["now_ms"], "what": HOSTILE}]
        status["history"] = [{"when_ms": 1, "what": HOSTILE, "model": HOSTILE, "version": HOSTILE, "why": HOSTILE}]
        status["counters"]["refused"][HOSTILE] = 3
        feature = {"name": HOSTILE, "words": HOSTILE, "psi": 1, "ks": 1, "limit": 0.1, "alarm": True, "edges": [],
                   "labels": [HOSTILE, "b"], "baseline": [0.5, 0.5], "now": [0.9, 0.1]}  # fmt: skip
        drift = {"alarm": True, "since_ms": 5, "n": 3, "features": [feature]}
        evidence = {"metric": HOSTILE, "value": 1, "n": 3}
        status["models"] = [one | {"engine": HOSTILE, "target": HOSTILE, "drift": drift, "evidence": evidence}
                            for one in status["models"]]  # fmt: skip
        status["models"].append(status["models"][0] | {"name": HOSTILE})

    alter(act)
    with live(served("text", (HOSTILE, "b"))) as server:
        page = browse(server.at["http"] + "/")
        page.wait(READY)
        page.get("document.querySelector('#text').value = 'x'")
        page.get("document.querySelector('#form button.main').click()")
        page.wait("document.querySelector('#answer .best')")
        assert page.text("#answer .best") == HOSTILE
        page.get("[...document.querySelectorAll('#models button')].pop().click()")
        assert page.text("#model-name") == HOSTILE
        for place in ("#host", "#errors", "#refused", "#history", "#features", "#machine-tiles", "#evidence"):
            assert HOSTILE in page.text(place) or HOSTILE.replace("_", " ") in page.text(place), place
        assert page.get("document.querySelectorAll('img, body script').length") == 0
        assert page.get("typeof window.owned") == "undefined"
        assert page.troubles() == []


def test_markup_is_stopped_by_the_policy_itself(browse: Open, server: Live) -> None:
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    attempt = "(() => { try { document.body.innerHTML = '<b>'; return ''; } catch (e) { return e.name; } })()"
    assert page.get(attempt) == "TypeError"
    page.get("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.2:9/x'}))")
    page.wait("1")
    assert any("Content Security Policy" in one for one in page.troubles())


@pytest.mark.parametrize("wide", [320, 360, 768, 1920])
def test_it_does_not_scroll_sideways(browse: Open, server: Live, alter: Alter, wide: int) -> None:
    def act(status: dict[str, Any]) -> None:
        status["errors"] = [{"when_ms": 1, "what": "x" * 300}]
        status["history"] = [{"when_ms": 1, "what": "rolled back", "model": "m" * 100, "version": "v" * 100, "why": ""}]
        status["models"] = [one | {"name": "n" * 100, "version": "v" * 100} for one in status["models"]]
        status["models"].append(status["models"][0] | {"name": "other"})

    alter(act)
    page = browse(server.at["http"] + "/", wide=wide)
    page.wait(READY)
    assert page.get("document.documentElement.scrollWidth") <= wide
    over = (
        f"[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide, .unseen, .skip, svg') &&"
        f" e.getBoundingClientRect().right > {wide} + 1).map(e => e.tagName + '.' + e.className + '#' + e.id)"
    )
    assert page.get(over) == []


@pytest.mark.parametrize("dark", [False, True])
def test_every_colour_of_words_can_be_read(browse: Open, server: Live, dark: bool) -> None:
    page = browse(server.at["http"] + "/", dark=dark)
    page.wait(READY)
    bright = page.get("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(bright) < 150) is dark
    names = ["--ink", "--soft", "--link", "--good", "--bad", "--open"]
    root = "getComputedStyle(document.documentElement)"
    colours = page.get(f"{json.dumps([*names, '--paper', '--wash'])}.map(n => {root}.getPropertyValue(n).trim())")
    *words, paper, wash = map(luminance, colours)
    for name, one in zip(names, words, strict=True):
        assert contrast(one, paper) >= 4.5, name
    assert min(contrast(words[0], wash), contrast(words[2], wash), contrast(words[4], wash)) >= 4.5


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def test_it_costs_the_browser_a_few_milliseconds_a_second(browse: Open, server: Live) -> None:
    page = browse(server.at["http"] + "/")
    page.wait(READY)
    ask(server, some())
    page.wait("document.querySelector('.line.rate').getAttribute('d').includes('L')")
    before = page.spent()
    time.sleep(5)
    after = page.spent()
    spent = {name: (after[name] - before[name]) / 5 for name in COSTS}
    assert sum(spent.values()) < 0.01, spent


def test_a_sound_is_recorded_and_heard(browse: Open) -> None:
    with live(served("audio", ("beep", "silence"), rate=16000)) as server:
        page = browse(server.at["http"] + "/")
        page.wait(READY)
        page.get("window.sent = []; const real = fetch; window.fetch = (url, more) => (more?.body instanceof File &&"
                 " sent.push(more.body), real(url, more))")  # fmt: skip
        button = "document.querySelector('#form button')"
        page.get(f"{button}.click()")
        page.wait(f"{button}.textContent === 'Stop'")
        page.wait("parseFloat(document.querySelector('[role=timer]').textContent) >= 1")
        page.get(f"{button}.click()")
        page.wait("document.querySelector('#answer .best')?.textContent === 'beep'")
        head = bytes(page.get("sent[0].arrayBuffer().then(b => [...new Uint8Array(b)])"))
        assert page.get("document.querySelector('audio').checkVisibility()")
        assert page.troubles() == []
    with contextlib.closing(wave.open(io.BytesIO(head))) as sound:
        rate = sound.getframerate()
        assert (sound.getnchannels(), sound.getsampwidth()) == (1, 2)
        heard = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
    assert rate >= 8000
    assert 0.9 < len(heard) / rate < 30
    assert np.abs(heard).max() > 1000, "the fake microphone beeps"


def test_where_it_cannot_record_it_says_why(browse: Open) -> None:
    with live(served("audio", ("beep", "silence"), rate=16000)) as server:
        page = browse("about:blank")
        page.call("Page.addScriptToEvaluateOnNewDocument",
                  source="Object.defineProperty(window, 'isSecureContext', {value: false})")  # fmt: skip
        page.go(server.at["http"] + "/")
        page.wait(READY)
        assert "needs a secure connection" in page.text("#form")
        assert page.get("document.querySelector('#form button')") is None


def test_tensors_are_sent_as_they_are_typed(browse: Open) -> None:
    model = pair(lambda feeds: {"y": feeds["x"] * 2})
    with live(Service([model])) as server:
        page = browse(server.at["http"] + "/")
        page.wait(READY)
        example = json.loads(page.get("document.querySelector('#text').value"))
        assert example == {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0, 0]}]}
        page.get(f"document.querySelector('#text').value = {json.dumps(two(3, 4).decode())}")
        page.get("document.querySelector('#text').focus()")
        page.press("Enter", modifiers=2)
        page.wait("document.querySelector('#answer td')")
        assert "6, 8" in page.text("#answer")
        page.get("document.querySelector('#text').value = '{'")
        page.get("document.querySelector('#form button').click()")
        page.wait("document.querySelector('#answer .failed')")


def test_a_device_that_falls_silent_is_said_to(browse: Open, tiny: Path) -> None:
    with live(open_service([tiny])) as server:
        page = browse(server.at["http"] + "/")
        page.wait(READY)
    page.wait("document.querySelector('#headline').textContent === 'No answer from the device'")
    assert "has not answered for" in page.text("#troubles")
    assert page.text("#fresh") == "not live"


def test_a_token_is_the_password(browse: Open, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    secret = add_token(file, "me", ["metrics", "infer"])
    secret = re.search(r"ek_\S+", secret)[0]  # type: ignore[index]
    with live(open_service([tiny]), guard=Guard(Tokens(file))) as server:
        assert server.ask("/", Accept="text/html")[0] == 401
        assert json.loads(server.ask("/")[1]) == {"status": "alive"}
        page = browse(server.at["http"].replace("//", f"//:{secret}@") + "/")
        page.wait(f"{READY} && document.querySelector('#headline').textContent === 'tiny: all is well'")
        page.upload("#file", photo(tmp_path / "one.png"))
        page.wait("document.querySelector('#answer .best')")
        assert page.troubles() == []
        kept = file.read_text()
        add_token(file, "another", ["metrics"])
        revoke_token(file, "me")
        page.wait("document.querySelector('#headline').textContent === 'A token is needed'")
        assert "as the password" in page.text("#troubles")
        file.write_text(kept)
        time.sleep(1.2)
        asked = server.counted("edgekit_http_requests_total", "401")
        time.sleep(2.2)
        assert server.counted("edgekit_http_requests_total", "401") == asked, "it asks again by itself"
        page.get("document.querySelector('#troubles button').click()")
        page.wait("document.querySelector('#headline').textContent === 'tiny: all is well'")


def test_a_token_that_is_not_enough_is_asked_for_again(browse: Open, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    scopes = (["infer"], ["metrics"], ["metrics", "infer"])
    less, looks, both = (add_token(file, f"t{n}", some) for n, some in enumerate(scopes))
    with live(open_service([tiny]), guard=Guard(Tokens(file))) as server:
        page = browse("about:blank")
        with typing(page, less, looks):
            page.get(f"void setTimeout(() => location.href = {json.dumps(server.at['http'] + '/')})")
        page.wait(f"{READY} && document.querySelector('#headline').textContent === 'tiny: all is well'")
        with typing(page, both):
            page.upload("#file", photo(tmp_path / "one.png"))
        page.wait("document.querySelector('#answer .best')")


@contextlib.contextmanager
def typing(page: Page, *secrets: str) -> Iterator[None]:
    """Type one after the other whenever the browser asks its user for a password; it has to ask for each."""
    page.call("Fetch.enable", handleAuthRequests=True)
    yield
    left, end = list(secrets), time.monotonic() + 20
    while left:
        assert time.monotonic() < end, f"the browser did not ask for {len(left)} of {len(secrets)}"
        page.browser.listen(0.05)
        asked = [one for one in page.browser.told if one["method"].startswith("Fetch.")]
        page.browser.told[:] = [one for one in page.browser.told if one not in asked]
        for one in asked:
            id = one["params"]["requestId"]
            if one["method"] == "Fetch.requestPaused":
                page.call("Fetch.continueRequest", requestId=id)
            elif left:
                answer = {"response": "ProvideCredentials", "username": "me", "password": left.pop(0)}
                page.call("Fetch.continueWithAuth", requestId=id, authChallengeResponse=answer)
    page.call("Fetch.disable")


def test_a_program_gets_what_it_always_got(server: Live) -> None:
    for accept in ("*/*", "application/json", "application/json, text/plain, */*", "text/html;q=0.1, application/json"):
        status, body, headers = server.ask("/", Accept=accept)
        assert (status, json.loads(body)) == (200, {"status": "alive"})
        assert headers["Content-Type"] == "application/json"
    assert json.loads(server.ask("/")[1]) == {"status": "alive"}
    assert not wants_page(b"text/html;q=0")
    assert wants_page(b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")


def test_its_files_are_guarded_and_kept(server: Live) -> None:
    status, body, headers = server.ask("/", Accept="text/html")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert all(f"{one} 'none'" in policy for one in ("default-src", "frame-ancestors", "base-uri", "form-action"))
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert headers["Cache-Control"] == "no-cache"
    found = re.findall(r'"(/page/[0-9a-f]{16}/[a-z]+\.(?:js|css))"', body.decode())
    assert len(found) == 2
    for path in found:
        status, plain, headers = server.ask(path)
        assert status == 200
        assert "immutable" in headers["Cache-Control"]
        packed = server.ask(path, Accept_Encoding="gzip")
        assert gzip.decompress(packed[1]) == plain
    assert server.ask(re.sub(r"[0-9a-f]{16}", "0" * 16, found[0]))[0] == 404
    assert server.ask(found[0].replace("page.css", "nothing.css"))[0] == 404
    assert server.ask("/page/../" + found[0])[0] == 404


def test_it_is_small_and_comes_from_here_alone() -> None:
    files = list(FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files) < 100_000
    for file in files:
        places = set(re.findall(r"https?://\w[\w.]*\w", file.read_text()))
        assert places <= {"http://www.w3.org", "http://localhost"}, file.name
