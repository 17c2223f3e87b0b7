"""The OpenAPI document: every route is in it, everything in it is a route, and its parts fit together."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from edgekit_runtime.counters import Counters
from edgekit_runtime.openapi import document
from edgekit_runtime.routes import Route, protocols
from edgekit_runtime.service import Service
from edgekit_runtime.watching import Watch, Watching

EXAMPLES = {"name": "m", "version": "1", "label": "l", "repository": "r", "region": "g"}
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def routes() -> list[Route]:
    """All that the server has."""
    return [*protocols(), *Watching(Service([]), Counters(), lambda: 0, Watch(page=False)).routes()]


def operations(admin: bool = True) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(verb, path, operation) of the document."""
    for path, item in document("1", (), admin)["paths"].items():
        for verb, operation in item.items():
            assert verb in METHODS
            yield verb.upper(), path, operation


def filled(path: str) -> str:
    """The path with a word for each of its parts."""
    return re.sub(r"\{(\w+)\}", lambda part: EXAMPLES[part[1]], path)


def test_everything_in_the_document_is_a_route() -> None:
    known = routes()
    for verb, path, _ in operations():
        assert any(route.verb == verb and route.path.fullmatch(filled(path)) for route in known), (verb, path)


def test_every_route_is_in_the_document() -> None:
    told = [(verb, filled(path)) for verb, path, _ in operations()]
    for route in routes():
        assert any(verb == route.verb and route.path.fullmatch(path) for verb, path in told), (
            route.verb,
            route.path.pattern,
        )


def test_the_admins_routes_can_be_left_out() -> None:
    paths = {(verb, path) for verb, path, _ in operations(admin=False)}
    assert ("POST", "/v2/repository/index") not in paths
    assert ("GET", "/v2/logging") in paths
    assert ("POST", "/v2/logging") not in paths
    assert ("POST", "/v2/logging") in {(verb, path) for verb, path, _ in operations()}


def test_every_part_of_a_path_is_declared_and_every_reference_leads_somewhere() -> None:
    whole = document("1", ["m"])
    for _, path, operation in operations():
        references = [json.dumps(parameter) for parameter in operation["parameters"]]
        for part in re.findall(r"\{(\w+)\}", path):
            assert any(f"/parameters/{part}" in reference for reference in references), path
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(whole)):
        at: Any = whole
        for key in reference.removeprefix("#/").split("/"):
            at = at[key]


@pytest.mark.parametrize("status", ["405", "408", "431", "500"])
def test_every_operation_declares_what_any_request_can_meet(status: str) -> None:
    assert all(status in operation["responses"] for _, _, operation in operations())


def test_an_inference_declares_its_refusals() -> None:
    found = {path: operation["responses"] for verb, path, operation in operations() if verb == "POST"}
    for path in ("/v2/models/{name}/infer", "/v1/models/{name}:predict", "/predictions/{name}"):
        assert {"200", "400", "401", "403", "404", "413", "415", "503", "504"} <= set(found[path])


def test_the_models_are_named_where_they_are_known() -> None:
    assert document("1", ["a", "b"])["components"]["parameters"]["name"]["schema"]["enum"] == ["a", "b"]
    assert "enum" not in document("1")["components"]["parameters"]["name"]["schema"]


def test_a_document_is_json_and_does_not_change_the_next() -> None:
    first = json.dumps(document("1"))
    document("2", ["x"], admin=False)
    assert json.dumps(document("1")) == first
