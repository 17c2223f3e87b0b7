"""Metrics, rules and dashboard against Debian's own Prometheus and promtool."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from edgekit_runtime import metrics
from edgekit_runtime.bundle import MANIFEST
from edgekit_runtime.counters import Counters
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import text
from edgekit_runtime.histograms import SECONDS, Histogram
from edgekit_runtime.monitoring_files import FOLDER, write_monitoring_files
from edgekit_runtime.service import Service

from tests.clients.serving import serving
from tests.prometheus_server import Prometheus, promtool, scraping, until
from tests.runtime.bundles import make_bundle, some
from tests.runtime.live import pair

GOOD, BAD, UNKNOWN = 40, 5, 3
RULES = FOLDER / "alerts.yml"
CASES = FOLDER / "alerts.test.yml"
NAME = re.compile(r"\b(?:edgekit|process)_[a-z0-9_]+")
HISTOGRAM = re.compile(r"_(?:bucket|sum|count)$")


@dataclass(frozen=True)
class Watched:
    """A server with a few requests behind it, and the Prometheus that saw them come."""

    http: str
    prometheus: Prometheus

    def told(self) -> str:
        with urllib.request.urlopen(f"{self.http}/metrics", timeout=20) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus")
    bundle = make_bundle(folder / "tiny")
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    manifest["evidence"]["quality"]["metric"] = "top1"
    manifest["provenance"]["built"] = datetime.now(UTC).isoformat()
    (bundle / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with serving([bundle]) as running, scraping(folder, [running.address], rules=RULES) as prometheus:
        assert running.http is not None
        zero = 'edgekit_requests_answered_total{model="tiny"} == 0'
        assert until(lambda: prometheus.query(zero)), "the server was not scraped"
        codes = [infer(running.http, "tiny", body) for body in [asked()] * GOOD + [asked(shape=[1, 12])] * BAD]
        codes += [infer(running.http, "none", asked()) for _ in range(UNKNOWN)]
        assert codes == [200] * GOOD + [400] * BAD + [404] * UNKNOWN
        seen = 'count_over_time(edgekit_http_requests_total{code="404"}[30s]) >= 3'  # a rate needs more than one
        assert until(lambda: prometheus.query(seen)), "the requests were not seen"
        yield Watched(running.http, prometheus)


def infer(http: str, model: str, body: bytes) -> int:
    """The status of one request."""
    try:
        with urllib.request.urlopen(f"{http}/v2/models/{model}/infer", body, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def asked(shape: list[int] | None = None) -> bytes:
    """A request for the tiny bundle, wrong in its shape where one is given."""
    x = some()
    inputs = [{"name": "x", "shape": shape or list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]
    return json.dumps({"inputs": inputs}).encode()


@pytest.mark.slow
def test_promtool_finds_nothing_to_say_of_a_real_scrape(watched: Watched) -> None:
    done = promtool("check", "metrics", given=watched.told())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_promtool_reads_tritons_names_and_finds_fault_with_those_alone() -> None:
    service = Service([pair(lambda feeds: {"y": feeds["x"]})])
    done = promtool("check", "metrics", given=text(metrics.families(service, Counters(), 0, triton=True)))
    said = (done.stdout + done.stderr).splitlines()
    assert said
    assert all(line.startswith("nv_inference_") for line in said), said


@pytest.mark.slow
def test_prometheus_counts_what_was_sent(watched: Watched) -> None:
    value, whose = watched.prometheus.value, '{job="edgekit",model="tiny",version="1"}'
    assert value(f"edgekit_requests_answered_total{whose}") == GOOD
    ran = value(f"edgekit_inferences_total{whose}")
    assert ran in range(GOOD, GOOD + 4), "beside what was sent, the recorded inputs may have been replayed"
    assert value(f"sum(edgekit_requests_failed_total{whose})") == BAD
    assert value('edgekit_http_requests_total{code="400"}') == BAD
    assert value('edgekit_http_requests_total{code="404"}') == UNKNOWN
    for name in ("request", "queue", "compute"):
        assert value(f"edgekit_{name}_duration_seconds_count{whose}") == GOOD
        assert value(f'edgekit_{name}_duration_seconds_bucket{{model="tiny",le="+Inf"}}') == GOOD
    alone = 'edgekit_batch_size_bucket{le="1"} == ignoring(le) edgekit_executions_total'
    assert value(alone) == ran


@pytest.mark.slow
def test_the_first_failure_is_seen_as_a_rise(watched: Watched) -> None:
    rise = watched.prometheus.value('sum(increase(edgekit_refused_total{reason="not_found"}[1m]))')
    assert rise is not None
    assert rise >= UNKNOWN


@pytest.mark.slow
def test_prometheus_tells_the_same_quantile_as_we_do(watched: Watched) -> None:
    told = watched.prometheus.query("edgekit_request_duration_seconds_bucket")
    reached = sorted((float(one["metric"]["le"]), int(one["value"][1])) for one in told)
    assert [bound for bound, _ in reached] == [*SECONDS, float("inf")]
    counts = [count - before for (_, before), (_, count) in pairwise([(0.0, 0), *reached])]
    ours = Histogram(SECONDS, counts, 0.0)
    for q in (0.1, 0.5, 0.9, 0.99, 1.0):
        theirs = watched.prometheus.value(f"histogram_quantile({q}, edgekit_request_duration_seconds_bucket)")
        assert ours.quantile(q) == pytest.approx(theirs)


@pytest.mark.slow
def test_prometheus_evaluates_every_rule(watched: Watched) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in watched.prometheus.api("rules")["groups"] for rule in group["rules"]]

    assert until(lambda: all(rule["health"] != "unknown" for rule in rules()))
    assert {rule["name"]: rule.get("lastError", "") for rule in rules()} == dict.fromkeys(alerts(), "")
    assert not [rule["name"] for rule in rules() if rule["state"] == "firing"]


def queries() -> dict[str, str]:
    """Every query of the dashboard by its place, as Grafana would send it."""
    board = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    targets = [(panel["title"], target) for panel in board["panels"] for target in panel.get("targets", ())]
    found = {f"{title} {target['refId']}": target["expr"] for title, target in targets}
    found |= {one["name"]: one["expr"] for one in board["annotations"]["list"] if "expr" in one}
    for name, value in (("$__rate_interval", "30s"), ("$instance", ".*"), ("$model", ".*")):
        found = {place: expression.replace(name, value) for place, expression in found.items()}
    assert not [expression for expression in found.values() if "$" in expression]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("expression", queries().values(), ids=queries())
def test_every_query_of_the_dashboard_is_answered(watched: Watched, expression: str) -> None:
    told = {line.split("{")[0].split(" ")[0] for line in watched.told().splitlines() if not line.startswith("#")}
    found = watched.prometheus.query(expression)
    if set(NAME.findall(expression)) <= told:
        assert found, "there is data, and the panel is empty"
        assert all(one["metric"].get("le") or one["value"][1] != "NaN" for one in found), found


@pytest.mark.slow
def test_every_variable_of_the_dashboard_has_values(watched: Watched) -> None:
    board = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    asked = [one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    found = [re.fullmatch(r"label_values\((.+), (\w+)\)", one.replace("$instance", ".*")) for one in asked]
    values = [watched.prometheus.query(match[1])[0]["metric"][match[2]] for match in found if match]
    assert values[0] == watched.http.split("//")[1]
    assert values[1:] == ["tiny"]


def test_the_dashboard_is_laid_out_without_gaps_in_its_meaning() -> None:
    board = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_rules_and_dashboard_use_names_that_are_told() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in FOLDER.parent.rglob("*.py"))
    known = set(re.findall(r'"((?:edgekit|process)_[a-z0-9_]+)"', source))
    used = {HISTOGRAM.sub("", name) for rule in alerts().values() for name in NAME.findall(rule["expr"])}
    used |= {HISTOGRAM.sub("", name) for expression in queries().values() for name in NAME.findall(expression)}
    assert used - known == set()


def alerts() -> Mapping[str, Any]:
    """The rules by name."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, rule in alerts().items():
        assert rule["for"], name
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert set(rule["annotations"]) == {"summary", "description"}, name
        assert rule["annotations"]["description"].endswith("."), name


def test_every_rule_fires_when_it_should_and_else_stays_quiet(tmp_path: Path) -> None:
    cases = [
        case for test in yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"] for case in test["alert_rule_test"]
    ]
    for fires in (True, False):
        assert {case["alertname"] for case in cases if bool(case.get("exp_alerts")) is fires} == set(alerts())
    write_monitoring_files(tmp_path)  # the tests are told to be run where the files are written
    done = promtool("test", "rules", tmp_path / CASES.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_is_a_configuration_that_prometheus_takes() -> None:
    done = promtool("check", "config", FOLDER / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules" in done.stdout


def test_the_files_are_written_and_never_over_somebody_elses(tmp_path: Path) -> None:
    made = write_monitoring_files(tmp_path / "new" / "folder")
    assert sorted(path.name for path in made) == ["alerts.test.yml", "alerts.yml", "dashboard.json", "prometheus.yml"]
    assert write_monitoring_files(tmp_path / "new" / "folder") == made
    made[1].write_text("groups: []")
    made[2].unlink()
    with pytest.raises(EdgeKitError, match="says something else"):
        write_monitoring_files(tmp_path / "new" / "folder")
    assert made[1].read_text() == "groups: []"
    assert not made[2].exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgeKitError):
        write_monitoring_files(tmp_path / "file")
