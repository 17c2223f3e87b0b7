"""The options of `edgekit-runtime serve` by which it watches itself, from words to what they begin.

Refuses an option without the one that it needs, and what the parts refuse: folders, addresses, commands."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.limits import MIB
from edgekit_runtime.option_words import positive, share

if TYPE_CHECKING:
    from edgekit_runtime.watching import Watch

RING_MB = 64.0
NEEDS = (
    ("keep_samples", "state"),
    ("telemetry_mb", "state"),
    ("otlp", "state"),
    ("remote_write", "state"),
    ("traces", "otlp"),
)
"""An option, and the one without which it would do nothing."""
OF_DRIFT = (
    ("on_drift", "it would never be run"),
    ("drift_rate", "there would be no alarms"),
    ("drift_samples", "nothing is looked at"),
)


def add(watch: argparse._ArgumentGroup) -> None:
    """Declare the options."""
    watch.add_argument("--no-page", action="store_true", help="show no page at /")
    watch.add_argument("--no-drift", action="store_true", help="do not compare requests with the build's samples")
    watch.add_argument("--drift-rate", type=positive, metavar="N", help="false alarms a day and model (0.01)")
    watch.add_argument(
        "--drift-samples", type=positive, metavar="N", help="look at N a second at most, where they follow each other"
    )
    watch.add_argument("--on-drift", metavar="COMMAND", help="run this when drift begins or ends; facts on its stdin")
    watch.add_argument("--feedback", action="store_true", help="take true labels later: POST /feedback")
    watch.add_argument(
        "--shadow", type=share, default=0.0, metavar="SHARE", help="of the requests, asked of the float model too (0)"
    )
    watch.add_argument("--state", type=Path, metavar="DIR", help="keep telemetry, samples and feedback there")
    watch.add_argument("--keep-samples", type=positive, metavar="MB", help="keep telling inputs in --state (off)")
    watch.add_argument("--telemetry-mb", type=positive, metavar="MB", help="its ring in --state (64)")
    watch.add_argument("--otlp", metavar="URL", help="send telemetry to this OpenTelemetry collector")
    watch.add_argument("--remote-write", metavar="URL", help="send it to this Prometheus")
    watch.add_argument("--send-headers", type=Path, metavar="FILE", help="Name: value, a line each, sent with both")
    watch.add_argument("--traces", type=share, metavar="SHARE", help="of the requests, traced to --otlp")
    watch.add_argument("--triton-metrics", action="store_true", help="tell metrics by Triton's names too")
    watch.add_argument("--log-format", choices=("text", "ecs"), default="text", help="ecs: a line of JSON each")


def watch(given: argparse.Namespace) -> "Watch":
    """What the server watches and tells of itself; opens what is kept on disk."""
    from edgekit_runtime.watched import Wishes
    from edgekit_runtime.watching import Watch

    check(given)
    samples = feedback = telemetry = tracer = hook = None
    if given.keep_samples:
        from edgekit_runtime.samples import Samples

        samples = Samples(given.state / "samples", int(given.keep_samples * MIB))
    if given.feedback:
        from edgekit_runtime.feedback import Feedback

        feedback = Feedback()
    if given.on_drift is not None:
        from edgekit_runtime.hook import Hook

        hook = Hook(given.on_drift)
    if given.traces is not None:
        from edgekit_runtime.telemetry.posting import address
        from edgekit_runtime.traces import Tracer

        where = address(given.otlp, given.send_headers)
        tracer = Tracer(where.url, given.traces, headers=where.headers)
    if given.state is not None:
        from edgekit_runtime.telemetering import Telemetry, Wanted

        size = int((given.telemetry_mb or RING_MB) * MIB)
        telemetry = Telemetry(Wanted(given.state, size, given.otlp, given.remote_write, given.send_headers))
    rate = given.drift_rate or Wishes.rate
    wishes = Wishes(not given.no_drift, rate, given.drift_samples, given.shadow, samples, feedback)
    return Watch(not given.no_page, given.triton_metrics, wishes, given.state, telemetry, tracer, hook)


def check(given: argparse.Namespace) -> None:
    """Raise where an option needs another one."""
    for option, needs in NEEDS:
        if getattr(given, option) is not None and getattr(given, needs) is None:
            words, wanted = (f"--{name.replace('_', '-')}" for name in (option, needs))
            said = "DIR: what is kept, or not sent yet, lies there" if needs == "state" else "URL"
            raise EdgeKitError(f"{words} without {wanted}", hint=f"say {wanted} {said}")
    if given.send_headers is not None and given.otlp is None and given.remote_write is None:
        raise EdgeKitError("--send-headers with nobody to send to", hint="say --otlp URL, or --remote-write URL")
    for option, why in OF_DRIFT:
        if getattr(given, option) is not None and given.no_drift:
            words = f"--{option.replace('_', '-')}"
            raise EdgeKitError(f"{words} with --no-drift: {why}", hint=f"leave out --no-drift, or {words}")
