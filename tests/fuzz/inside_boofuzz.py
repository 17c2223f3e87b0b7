"""Run by the Python of boofuzz's own environment: what HTTP's grammar allows and much that it does not, to one address.

Refuses nothing; tells as a line of JSON how many cases were sent and which of them the server did not survive."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from boofuzz import Block, Delim, Group, Request, Session, Size, Static, String, Target, TCPSocketConnection

PATHS = [
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models",
    "/v2/models/tiny",
    "/v2/models/tiny/versions/1",
    "/v2/models/tiny/ready",
    "/v2/models/tiny/config",
    "/v2/models/tiny/stats",
    "/v2/models/stats",
    "/v2/models/tiny/infer",
    "/v2/models/tiny/trace/setting",
    "/v2/trace/setting",
    "/v2/logging",
    "/v2/repository/index",
    "/v2/repository/models/tiny/load",
    "/v2/repository/models/tiny/unload",
    "/v2/systemsharedmemory/status",
    "/v2/cudasharedmemory/status",
    "/v2/models/tiny/generate",
    "/v1/models/tiny:predict",
    "/predictions/tiny",
    "/metrics",
]
BODY = '{"inputs":[{"name":"x","shape":[1,3,2,2],"datatype":"FP32","data":[0,0,0,0,0,0,0,0,0,0,0,0]}]}'


class Over(BaseException):
    """Enough: boofuzz goes on after any `Exception`."""


def request(name: str, path: str, verb: str, body: str) -> Request:
    """One request with its line, headers and body open to change."""
    line = Block(
        f"{name}-line",
        children=(
            Group("verb", values=[verb, "HEAD", "PUT", "OPTIONS"]),
            Delim("space", " "),
            String("path", path),
            Delim("space-2", " "),
            String("version", "HTTP/1.1"),
            Static("end", "\r\n"),
        ),
    )
    headers = Block(
        f"{name}-headers",
        children=(
            Static("host-key", "Host: "),
            String("host", "device"),
            Static("host-end", "\r\nContent-Length: "),
            Size("length", block_name=f"{name}-body", output_format="ascii", fuzzable=True),
            Static("length-end", "\r\n"),
            String("key", "Inference-Header-Content-Length"),
            Delim("colon", ":"),
            String("value", str(len(body))),
            Static("close", "\r\nConnection: close\r\n\r\n"),
        ),
    )
    return Request(name, children=(line, headers, Block(f"{name}-body", children=(String("body", body),))))


def main() -> int:
    host, port = sys.argv[1].rsplit(":", 1)
    seconds = float(os.environ.get("FUZZ_SECONDS", "0")) or 40.0
    failures: list[str] = []
    cases = 0
    end = time.monotonic() + seconds

    def judged(target, fuzz_data_logger, session, *given, **named) -> None:
        nonlocal cases
        cases += 1
        if b"HTTP/1.1 500" in (session.last_recv or b""):
            failures.append(f"500 for {session.last_send[:300]!r}")
        if time.monotonic() > end or failures:
            raise Over

    for number, path in enumerate(PATHS):
        end = time.monotonic() + seconds / len(PATHS)
        session = Session(
            target=Target(connection=TCPSocketConnection(host, int(port), send_timeout=2.0, recv_timeout=0.1)),
            web_port=None,
            keep_web_open=False,
            fuzz_loggers=[],
            db_filename=str(Path(sys.argv[2]) / f"{number}.db"),
            sleep_time=0.0,
            receive_data_after_each_request=True,
            receive_data_after_fuzz=True,
            reuse_target_connection=False,
            check_data_received_each_request=False,
            ignore_connection_reset=True,
            ignore_connection_aborted=True,
            ignore_connection_issues_when_sending_fuzz_data=True,
            ignore_connection_ssl_errors=True,
            post_test_case_callbacks=[judged],
        )
        verb = "POST" if any(word in path for word in ("infer", "predict", "repository", "generate")) else "GET"
        session.connect(request(f"r{number}", path, verb, BODY if verb == "POST" else "{}"))
        with contextlib.suppress(Over), contextlib.redirect_stdout(sys.stderr):
            session.fuzz(max_depth=1)
    sys.stdout.write(json.dumps({"cases": cases, "failures": failures[:5]}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
