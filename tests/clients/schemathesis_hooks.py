"""Loaded by schemathesis: what OpenAPI cannot say of our requests.

Refuses one kind of request: a header that says the body is one raw tensor, over a body meant as JSON. Any bytes are
then right, so the body's schema says nothing about it."""

import schemathesis


@schemathesis.hook("filter_case")
def not_raw(context, case):
    """Whether this request is to be sent."""
    headers = {str(key).lower(): str(value) for key, value in (case.headers or {}).items()}
    return headers.get("inference-header-content-length", "").strip() not in ("0", "00", "-0", "+0")
