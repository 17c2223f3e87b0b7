"""OpenTelemetry's protocol over HTTP, by OpenTelemetry's own exporter: slots as its metrics, at their original times.

Refuses to begin where the exporter is not installed. It is imported when asked for; nothing else here needs it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import Labels
from edgekit_runtime.telemetry.posting import TIMEOUT, Address, Answer, Destination, Outcome, judged
from edgekit_runtime.telemetry.series import Series, Slot

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

SCOPE = "edgekit_runtime"
MS = 1_000_000
UNKNOWN: Any = None
"""Left out of the message: Prometheus' histograms know no least and no most."""


def otlp(where: Address, resource: Mapping[str, str]) -> Destination:
    """A collector, or what speaks like one, at its full URL (.../v1/metrics); `resource` says who we are.

    Raises:
        EdgeKitError: the exporter is not installed.
    """
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        hint = "pip install 'edgekit-runtime[otlp]'"
        raise EdgeKitError("OpenTelemetry's exporter is not installed here", hint=hint) from error
    last: list[Answer] = []

    def heard(answer: Any, *_: Any, **__: Any) -> None:
        rejected = _rejected(answer.content) if answer.status_code == 200 else ""
        text = rejected or ("" if answer.status_code == 200 else answer.text)
        last[:] = [judged(answer.status_code, answer.headers.get("Retry-After"), text)]

    session = requests.Session()
    session.trust_env = False  # no password out of ~/.netrc, no proxy: what is sent is what the operator gave
    session.hooks["response"].append(heard)
    exporter = OTLPMetricExporter(
        where.url,
        certificate_file=_certificates(),
        headers=dict(where.headers),
        timeout=TIMEOUT,
        compression=Compression.Gzip,
        session=session,
    )

    def deliver(slots: Sequence[Slot]) -> Answer:
        last.clear()
        try:
            data = metrics_data(slots, resource)
        except (ValueError, OverflowError, LookupError) as error:  # NaN in a bucket: it will be so the next time too
            return Answer(Outcome.REFUSED, f"no metrics of OpenTelemetry: {error}")
        exporter.export(data)
        # its own verdict takes a redirect for success, and does not tell a refusal from no network
        return last[0] if last else Answer(Outcome.LATER, "no answer")

    return Destination(f"otlp {where.name}", deliver, exporter.shutdown)


def metrics_data(slots: Sequence[Slot], resource: Mapping[str, str]) -> "MetricsData":
    """The slots as OpenTelemetry's metrics: counters are cumulative sums, buckets are counted one by one."""
    from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    points: dict[str, list[Any]] = {}
    about: dict[str, Series] = {}
    for slot in slots:
        families: dict[str, list[tuple[Series, float]]] = {}
        for series, value in zip(slot.series, slot.values.tolist(), strict=True):
            families.setdefault(series.family, []).append((series, value))
        for family, samples in families.items():
            about[family] = samples[0][0]
            make = _histograms if samples[0][0].kind == "histogram" else _numbers
            points.setdefault(family, []).extend(make(slot, samples))
    metrics = [Metric(name, one.words, "", _data(one, points[name])) for name, one in about.items()]
    scope = ScopeMetrics(InstrumentationScope(SCOPE), metrics, "")
    return MetricsData([ResourceMetrics(Resource(dict(resource)), [scope], "")])


def _data(one: Series, points: list[Any]) -> Any:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, Sum

    if one.kind == "gauge":
        return Gauge(points)
    if one.kind == "counter":
        return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return Histogram(points, AggregationTemporality.CUMULATIVE)


def _numbers(slot: Slot, samples: list[tuple[Series, float]]) -> list[Any]:
    from opentelemetry.sdk.metrics.export import NumberDataPoint

    times = _start(slot), slot.when_ms * MS
    return [NumberDataPoint(dict(series.labels), *times, value) for series, value in samples]


def _start(slot: Slot) -> int:
    return max(0, slot.start_ms) * MS


def _histograms(slot: Slot, samples: list[tuple[Series, float]]) -> list[Any]:
    """Prometheus' buckets count all that is below, OpenTelemetry's what is between two bounds."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    found: dict[Labels, tuple[list[tuple[float, float]], dict[str, float]]] = {}
    for series, value in samples:
        labels = tuple(one for one in series.labels if one[0] != "le")
        buckets, whole = found.setdefault(labels, ([], {}))
        if series.suffix == "_bucket":
            buckets.append((float(dict(series.labels)["le"]), value))
        else:
            whole[series.suffix] = value
    points = []
    for labels, (buckets, whole) in found.items():
        buckets.sort()
        below = [0.0, *(count for _, count in buckets)]
        if not buckets or buckets[-1][0] != float("inf"):
            below.append(whole.get("_count", below[-1]))
        counts = [max(0, int(high - low)) for low, high in pairwise(below)]  # it is read while it is counted
        bounds = [bound for bound, _ in buckets if bound != float("inf")]
        times, total = (_start(slot), slot.when_ms * MS), whole.get("_sum", 0.0)
        points.append(HistogramDataPoint(dict(labels), *times, sum(counts), total, counts, bounds, UNKNOWN, UNKNOWN))
    return points


def _rejected(body: bytes) -> str:
    """What a receiver says of points that it did not take although it said yes; empty where there are none."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    try:
        partial = ExportMetricsServiceResponse.FromString(body).partial_success
    except Exception:  # protobuf's DecodeError, or whatever its next version raises: it said 200, that is enough
        return ""
    if not partial.rejected_data_points:
        return ""
    return f"{partial.rejected_data_points} points were not taken: {partial.error_message}"


def _certificates() -> str | None:
    """The system's, as `posting` trusts; the library would bring its own."""
    import ssl

    return ssl.get_default_verify_paths().cafile
