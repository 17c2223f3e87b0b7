"""The page and the model card: whole, self-contained, and not to be fooled by what the facts hold."""

import copy
import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edgekit.report import card, page
from edgekit.report.charts import Scale, drop_scale
from tests.report_facts import ALL, CLOTHES, Facts, image_details, images, refused, series, unbudgeted

VOID = {"meta", "img", "br", "hr", "input", "link"}
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>' $title &lt;"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
every = pytest.mark.parametrize("facts", [pytest.param(make, id=name) for name, make in ALL.items()])


class Reader(HTMLParser):
    """Follows every tag to its end; keeps the words, the identifiers and the attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def read(facts: Facts) -> Reader:
    reader = Reader()
    reader.feed(page(facts))
    reader.close()
    assert reader.open == []
    return reader


def said(facts: Facts) -> str:
    return " ".join("".join(read(facts).words).split())


def spoiled(value: Any, bad: Any) -> Any:
    """The same facts with every number and every word, but the keys, replaced."""
    if isinstance(value, dict):
        return {key: spoiled(inner, bad) for key, inner in value.items()}
    if isinstance(value, list):
        return [spoiled(inner, bad) for inner in value]
    return bad


def each_missing(facts: Facts) -> list[Facts]:
    """The facts with one key less, or None for it, for every key at any depth (the first of a list stands for all)."""
    found: list[Facts] = []

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        keys: list[Any] = list(value) if isinstance(value, dict) else [0] if isinstance(value, list) and value else []
        for key in keys:
            walk(value[key], (*path, key))
            for gone in (True, False):
                less = copy.deepcopy(facts)
                inside: Any = less
                for step in path:
                    inside = inside[step]
                if gone:
                    del inside[key]
                else:
                    inside[key] = None
                found.append(less)

    walk(facts, ())
    return found


@every
def test_the_page_is_well_formed_and_no_identifier_comes_twice(facts: Callable[[], Facts]) -> None:
    names = [attributes["id"] for _, attributes in read(facts()).tags if "id" in attributes]
    assert len(names) == len(set(names)) > 3


@every
def test_the_page_fetches_nothing_and_runs_nothing(facts: Callable[[], Facts]) -> None:
    reader, whole = read(facts()), page(facts())
    assert not re.search(r"https?:|//cdn|@import|url\(", whole)
    assert not [tag for tag, _ in reader.tags if tag in ("script", "link", "iframe", "object", "embed")]
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert "default-src 'none'" in whole


@every
def test_every_link_inside_the_page_leads_somewhere(facts: Callable[[], Facts]) -> None:
    tags = read(facts()).tags
    here = {attributes.get("id") for _, attributes in tags}
    links = [str(attributes["href"]) for tag, attributes in tags if tag == "a"]
    assert links
    assert all(link.startswith("#") and link[1:] in here for link in links)


@every
def test_the_verdict_comes_first_and_every_candidate_is_named(facts: Callable[[], Facts]) -> None:
    told, known = said(facts()), facts()
    if "sentence" in known:
        assert known["sentence"] in told
    assert known["why"] in told
    assert told.index(known["why"]) < 1200 + told.index(known["name"])
    for one in known["candidates"]:
        assert f"{one['title']}{', ' + one['recipe'] if one['recipe'] else ''}" in told


@every
def test_pictures_apart_the_page_is_small(facts: Callable[[], Facts]) -> None:
    bare = re.sub(r"data:image/png[^\"]*", "", page(facts()))
    assert len(bare.encode()) < 66_000


@pytest.mark.slow
@every
def test_what_is_missing_is_left_out_without_a_fall(facts: Callable[[], Facts]) -> None:
    for less in each_missing(facts())[::3]:
        read(less)
        card(less)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None, "", -1, HOSTILE, True, [], {}], ids=repr)
@every
def test_numbers_that_are_none_do_not_reach_the_page(facts: Callable[[], Facts], bad: Any) -> None:
    drawn = "".join(str(attributes) for _, attributes in read(spoiled(facts(), bad)).tags)
    assert not re.search(r"\b(nan|inf)\b", drawn, re.IGNORECASE)
    assert card(spoiled(facts(), bad))


def test_nothing_that_the_facts_hold_becomes_markup() -> None:
    facts = images()
    hostile = spoiled(facts, HOSTILE)
    for known in (facts, {**facts, **{key: hostile[key] for key in ("name", "why", "sentence", "command", "machine")}}):
        known["candidates"][3]["classes"][0]["class"] = HOSTILE
        known["candidates"][3] |= {"recipe": HOSTILE, "format": HOSTILE, "precision": HOSTILE, "notes": [HOSTILE]}
        known["details"]["confusion"]["classes"][0] = HOSTILE
        known["details"]["differing"][0] |= {"label": HOSTILE, "picture": None, "values": {HOSTILE: HOSTILE}}
        known["data"]["calibration"] |= {"where": HOSTILE, "missing": [HOSTILE], "classes": {HOSTILE: 3}}
        reader = read(known)
        assert not [tag for tag, attributes in reader.tags if tag == "script" or "onerror" in attributes]
        assert "<script>alert(1)</script>" in "".join(reader.words)


@pytest.mark.parametrize(
    "picture", ["https://x.example/a.png", "data:image/svg+xml;base64,AAAA", 'data:image/png;base64,AA" onload="x', 7]
)
def test_a_picture_that_is_no_bitmap_in_the_page_is_not_shown(picture: Any) -> None:
    facts = images()
    for one in facts["details"]["differing"]:
        one["picture"] = picture
    assert not [tag for tag, _ in read(facts).tags if tag == "img"]


def test_a_long_tail_of_classes_is_folded_and_stays_small() -> None:
    facts = images()
    facts["details"]["confusion"] = image_details(50)["confusion"]
    row = facts["candidates"][3]["classes"][0]
    facts["candidates"][3]["classes"] = [{**row, "class": f"class {i}"} for i in range(50)]
    told = said(facts)
    assert "40 more classes" in told
    assert "the 24 that changed most of 50" in told
    assert len(re.sub(r"data:image/png[^\"]*", "", page(facts)).encode()) < 110_000


def test_one_ruined_candidate_does_not_squeeze_the_others() -> None:
    scale = drop_scale([0.001, -0.002, 0.4], 0.005, [0.003])
    assert scale.beyond(0.4)
    assert scale.at(0.005) - scale.at(0.0) > 20


def test_a_scale_keeps_its_order_and_its_ends() -> None:
    for scale in (Scale(0.0, 2.0), Scale(0.1, 30.0, log=True)):
        places = [scale.at(value) for value in (-1.0, 0.2, 0.9, 1.9, 50.0)]
        assert places == sorted(places)
        assert (places[0], places[-1]) == (0.0, 100.0)
        assert all(left < right for left, right in pairwise(scale.ticks()))
        assert len(scale.ticks()) >= 2


def test_a_refusal_is_told_with_its_way_out_and_a_regression_without_classes() -> None:
    assert "use --format onnx" in said(refused())
    told = said(series())
    assert "increase of mae" in told
    assert "Class by class" not in told
    assert "not timed: this machine is x86_64" in told
    assert "instruction set only" in told
    assert "Quality: there was no evaluation data" in said(unbudgeted())


def test_the_missing_class_the_confirmed_drop_and_the_device_are_on_the_page() -> None:
    told = said(images())
    assert "Missing from calibration: Bag." in told
    assert "confirmed, n 5,120 of 8,000, stopped early, one-sided 97.5 %" in told
    assert "cortex-a72, emulated" in told
    assert "+27 Sandal answered as T-shirt/top: 9 → 36" in told


def contrast(one: str, other: str) -> float:
    """The contrast of two colours by WCAG 2."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_text_is_readable_in_light_and_in_dark() -> None:
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme)) for scheme in page(images()).split("@media (prefers", 1)
    )
    for colours in (light, {**light, **dark}):
        for name in ("ink", "soft", "link", "good", "bad", "open", "onnx", "tflite", "openvino", "other"):
            assert contrast(colours[name], colours["paper"]) >= 4.5, name
        for name in ("onnx", "tflite", "openvino", "other"):
            assert contrast(colours[name], colours["mark"]) >= 4.5, name
        assert contrast(colours["ink"], colours["track"]) >= 4.5


@every
def test_the_card_tells_the_verdict_the_evidence_and_the_limits(facts: Callable[[], Facts]) -> None:
    told, known = card(facts()), facts()
    assert told.startswith("---\nlibrary_name: edgekit\n")
    for title in ("What it is", "Intended device", "How it was made", "Evidence", "Fingerprints"):
        assert f"\n## {title}\n" in told
    assert "## Limits, and what was not measured" in told
    assert known["verdict"] in told
    assert f"```sh\n{known.get('command', '')}\n```" in told or "command" not in known


def test_the_card_gives_n_and_interval_and_names_the_missing_class() -> None:
    told = card(images())
    assert "| all samples | 10,000 | +0.11 pt | \u22120.10 to +0.32 | 95 % |" in told
    assert "| confirmation | 5,120 | +0.09 pt | \u22120.18 to +0.36 | one-sided 97.5 % |" in told
    assert "Calibration held no sample of: Bag." in told
    assert "edgekit-runtime serve depthwise-rpi4.edgekit" in told
    assert "edgekit-runtime serve" not in card(refused())


def test_a_name_does_not_become_markdown() -> None:
    facts = images()
    facts |= {"name": "a|b\n# <b>*x*</b>", "command": "echo '```'\n# end"}
    facts["target"]["name"] = '"\n- evil: true'
    told = card(facts)
    assert r"\# \<b\>\*x\*\</b\>" in told
    assert "\n# <b>" not in told
    assert "````sh\necho '```'\n# end\n````" in told
    assert json.dumps('"\n- evil: true') in told.split("---")[1]


def browse(folder: Path, facts: Facts, wide: int) -> tuple[dict[str, Any], str]:
    """What Chromium measures of the page in a frame so wide, and what it wrote to its console."""
    (folder / "frame.html").write_text(
        f'<body><iframe style="border:0;width:{wide}px" srcdoc="{html.escape(page(facts))}"></iframe>'
        "<pre id=found></pre><script>onload = () => { const d = frames[0].document, w = d.documentElement;"
        "const apart = e => e.closest('.wide, .unseen, .skip, .tip, svg');"
        "const over = [...d.querySelectorAll('body *')].filter(e => !apart(e)"
        f" && e.getBoundingClientRect().right > {wide} + 1).map(e => e.tagName + '.' + e.className);"
        "found.textContent = JSON.stringify({scroll: w.scrollWidth, over,"
        "marks: d.querySelectorAll('.marks a').length}) }</script>",
        encoding="utf-8",
    )
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1300,900", "--dump-dom", f"file://{folder}/frame.html",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(folder)})
    match = re.search(r"<pre id=\"found\">(.*?)</pre>", done.stdout, re.DOTALL)
    assert match, done.stderr[-600:]
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html.unescape(match[1])), console


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@every
@pytest.mark.parametrize("wide", [360, 1200])
def test_a_real_browser_shows_it_without_sideways_scrolling_or_errors(facts: Callable[[], Facts], wide: int) -> None:
    known = facts()
    known["source"]["model"] = "a" * 200 + "/" + CLOTHES[0]
    with tempfile.TemporaryDirectory() as folder:
        found, console = browse(Path(folder), known, wide)
    assert found["scroll"] <= wide
    assert found["over"] == []
    assert console == ""
    assert found["marks"] == sum(bool(one["quality"] and one["bytes"]) for one in known["candidates"])
