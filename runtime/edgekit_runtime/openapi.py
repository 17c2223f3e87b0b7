"""The OpenAPI 3.0 document of the HTTP routes, as a JSON value made when it is asked for. Pure.

Refuses nothing: it tells what the routes take and what they answer, and the routes hold to it."""

from collections.abc import Sequence
from typing import Any

from edgekit_runtime.openapi_schemas import ANY, BYTES, PAGED, SCHEMAS, TEXT, ref

Json = dict[str, Any]

ERRORS = {
    400: "The request does not read, or does not fit the model",
    401: "No token, or one that is not known",
    403: "The token does not allow this, or it is switched off",
    404: "No such path, model or version",
    405: "Another verb is needed here: see Allow",
    408: "The request took too long to come",
    413: "The body, or what it unpacks to, is too large",
    414: "The address is too long",
    415: "The body is packed in a way, or is of a kind, that is not read here",
    429: "Too many connections from one address",
    431: "The headers are too large or too many",
    500: "A fault of the server",
    501: "This server does not have it",
    503: "No room now: see Retry-After",
    504: "The answer would have come too late",
    505: "Another version of HTTP is spoken here",
    507: "The model does not fit beside the others",
}


def document(version: str = "0", names: Sequence[str] = (), admin: bool = True) -> Json:
    """The document of all routes, or of those without the `admin` ones; `names` are the models there are."""
    paths = _with_admin(_paths()) if admin else _paths()
    made = {"openapi": "3.0.3", "info": _info(version), "paths": paths}
    token = {"type": "http", "scheme": "bearer", "description": "Asked for where the server was given tokens"}
    parts = {"schemas": SCHEMAS, "parameters": _parameters(names), "responses": _responses()}
    return {**made, "components": {**parts, "securitySchemes": {"token": token}}, "security": [{}, {"token": []}]}


def _info(version: str) -> Json:
    about = "Open Inference Protocol v2, TensorFlow Serving, KServe V1 and TorchServe over the same models."
    return {"title": "edgekit-runtime", "version": version, "description": about}


def _paths() -> Json:
    """Each public path with its operations."""
    model, versioned = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    paths: Json = {
        "/": {"get": _get("Alive", "Alive"), "options": _get("This document", "Document")},
        "/ping": {"get": _get("TorchServe: well or not", "Ping", (500, 503))},
        "/metrics": {"get": _operation("Numbers for Prometheus", {"text/plain": TEXT}, (401, 403))},
        "/status": {"get": _operation("What the server is, does and has seen", JSON_ANY, (401, 403))},
        "/feedback": {"post": _operation("True labels for answers", JSON_ANY, NAMED, (), {"application/json": ANY})},
        "/v2": {"get": _get("Name, version and extensions", "Server")},
        "/v2/openapi.json": {"get": _get("This document", "Document")},
        "/v2/health/live": {"get": _get("The process answers", "Health", (503,))},
        "/v2/health/ready": {"get": _get("Every model answers", "Health", (400, 503))},
        "/v2/models": {"get": _get("The models", "Models", (401, 403))},
        "/v2/models/stats": {"get": _get("Statistics of all models", "Statistics", (401, 403))},
        "/v2/trace/setting": {"get": _get("Settings of traces", "Settings", (401, 403))},
        "/v2/logging": {"get": _get("Settings of the log", "Settings", (401, 403))},
        "/v2/models/{name}/trace/setting": {"get": _get("Settings of traces", "Settings", NAMED, ["name"])},
    }
    for at, named in ((model, ["name"]), (versioned, ["name", "version"])):
        paths[at] = {"get": _get("Its tensors", "Metadata", NAMED, named)}
        paths[f"{at}/ready"] = {"get": _get("It answers", "ModelReady", (*NAMED, 503), named)}
        paths[f"{at}/config"] = {"get": _get("Its configuration, as Triton words it", "Config", NAMED, named)}
        paths[f"{at}/stats"] = {"get": _get("Its statistics", "Statistics", NAMED, named)}
        paths[f"{at}/infer"] = {"post": _infer(named)}
        for verb in ("generate", "generate_stream"):
            paths[f"{at}/{verb}"] = {"post": _operation("Not offered", None, (501, *NAMED), named)}
    return {**paths, **_memory_paths(), **_tfserving_paths(), **_torchserve_paths()}


def _memory_paths() -> Json:
    """Shared memory, which is off: nothing is registered, nothing can be."""
    found: Json = {}
    for at in ("/v2/systemsharedmemory", "/v2/cudasharedmemory"):
        found[f"{at}/status"] = {"get": _get("What is registered: nothing", "Regions", (401, 403))}
        found[f"{at}/unregister"] = {"post": _operation("Nothing is registered", JSON_ANY, (401, 403))}
        one = f"{at}/region/{{region}}"
        found[f"{one}/status"] = {"get": _operation("No region is registered", None, NAMED, ["region"])}
        found[f"{one}/register"] = {"post": _operation("Not offered", None, (501, 401, 403), ["region"])}
        found[f"{one}/unregister"] = {"post": _operation("Nothing is registered", JSON_ANY, (401, 403), ["region"])}
    return found


def _tfserving_paths() -> Json:
    """TensorFlow Serving's paths, and KServe's V1 among them."""
    paths: Json = {"/v1/models": {"get": _get("The models", "Models", (401, 403))}}
    base = "/v1/models/{name}"
    for at, named in (
        (base, ["name"]),
        (f"{base}/versions/{{version}}", ["name", "version"]),
        (f"{base}/labels/{{label}}", ["name", "label"]),
    ):
        paths[at] = {"get": _get("Which versions are there", "Status", NAMED, named)}
        paths[f"{at}/metadata"] = {"get": _get("Its signature", "Signature", NAMED, named)}
        for verb, asked, told in (
            ("predict", "Predict", "Predicted"),
            ("classify", "Examples", "Results"),
            ("regress", "Examples", "Results"),
        ):
            paths[f"{at}:{verb}"] = {"post": _post(verb, asked, told, named)}
    paths[f"{base}:explain"] = {"post": _operation("Not offered yet", None, (501, *NAMED), ["name"])}
    return paths


def _torchserve_paths() -> Json:
    """TorchServe's paths for inference."""
    found: Json = {}
    for at, named in (("/predictions/{name}", ["name"]), ("/predictions/{name}/{version}", ["name", "version"])):
        body = {"application/json": ANY, "application/octet-stream": BYTES, "multipart/form-data": ref("Form")}
        told = _operation("An answer for a photo, a text or numbers", JSON_ANY, INFERS, named, body)
        found[at] = {"post": told, "put": told}
    for at, named in (("/explanations/{name}", ["name"]), ("/explanations/{name}/{version}", ["name", "version"])):
        told = _operation("Not offered yet", None, (501, *NAMED), named)
        found[at] = {"post": told, "put": told}
    closed = _operation("Not from here: see --repository", None, NAMED)
    listed = _get("The models, as TorchServe lists them", "Page", (400, 401, 403))
    pages = [{"name": key, "in": "query", "schema": PAGED} for key in ("limit", "next_page_token")]
    found["/models"] = {"get": {**listed, "parameters": pages}, "post": closed}
    for at, named in (("/models/{name}", ["name"]), ("/models/{name}/{version}", ["name", "version"])):
        closed = _operation("Not from here: see --repository", None, NAMED, named)
        found[at] = {"get": _get("How it runs", "Descriptions", NAMED, named), "put": closed, "delete": closed}
    found["/models/{name}/{version}/set-default"] = {"put": _operation("Not from here", None, NAMED, named)}
    return found


def _with_admin(paths: Json) -> Json:
    """The paths, with what only the admin's address does not refuse."""
    for at, named in (("/v2/repository", []), ("/v2/repository/{repository}", ["repository"])):
        asked, told = {"application/json": ref("IndexRequest")}, {"application/json": ref("Index")}
        index = _operation("Models that are, or can be, loaded", told, (*NAMED, 501), named, asked)
        paths[f"{at}/index"] = {"post": index}
        for verb in ("load", "unload"):
            body = {"application/json": ref(f"{verb.capitalize()}Request")}
            errors = (*NAMED, 501, 503, 507)
            made = _operation(f"{verb.capitalize()} a model", JSON_ANY, errors, [*named, "name"], body)
            paths[f"{at}/models/{{name}}/{verb}"] = {"post": made}
    paths["/samples"] = {"get": _operation("Kept samples as a tar", {"application/x-tar": BYTES}, (400, *NAMED))}
    paths["/samples/index"] = {"get": _operation("What is kept", JSON_ANY, (400, *NAMED))}
    for at, schema, named in (
        ("/v2/trace/setting", "TraceRequest", []),
        ("/v2/models/{name}/trace/setting", "TraceRequest", ["name"]),
        ("/v2/logging", "LogRequest", []),
    ):
        body, told = {"application/json": ref(schema)}, {"application/json": ref("Settings")}
        paths[at]["post"] = _operation("Change the settings", told, (*NAMED, 501), named, body)
    return paths


NAMED = (401, 403, 404)
INFERS = (400, *NAMED, 413, 415, 503, 504)
JSON_ANY: Json = {"application/json": ANY}
EVERYWHERE = (405, 408, 414, 429, 431, 500)


def _get(summary: str, schema: str, errors: Sequence[int] = (), named: Sequence[str] = ()) -> Json:
    return _operation(summary, {"application/json": ref(schema)}, errors, named)


def _post(verb: str, asked: str, told: str, named: Sequence[str]) -> Json:
    body = {"application/json": ref(asked)}
    return _operation(verb.capitalize(), {"application/json": ref(told)}, INFERS, named, body)


def _infer(named: Sequence[str]) -> Json:
    body = {"application/json": ref("InferRequest"), "application/octet-stream": BYTES}
    told = {"application/json": ref("InferResponse"), "application/octet-stream": BYTES}
    found = _operation("Run the model", told, INFERS, named, body)
    length = {"$ref": "#/components/parameters/headerLength"}
    return {**found, "parameters": [*found["parameters"], length]}


def _operation(
    summary: str, told: Json | None, errors: Sequence[int], named: Sequence[str] = (), body: Json | None = None
) -> Json:
    """One operation; `told` are its answers by media type: None for none but errors, {"": None} for an empty one."""
    responses: Json = {}
    if told is not None:
        content = {kind: {"schema": schema} for kind, schema in told.items() if kind}
        responses["200"] = {"description": "Done", **({"content": content} if content else {})}
    more = (400, 413, 415) if body is not None else ()
    for status in sorted({*errors, *more, *EVERYWHERE}):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    found: Json = {"summary": summary, "responses": responses}
    found["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in named]
    if body is not None:
        found["requestBody"] = {"content": {kind: {"schema": schema} for kind, schema in body.items()}}
    return found


def _parameters(names: Sequence[str]) -> Json:
    word = {"type": "string", "minLength": 1, "maxLength": 100}
    name = {"type": "string", "enum": list(names)} if names else word
    path = {"name": name, "version": word, "label": word, "repository": TEXT, "region": TEXT}
    found: Json = {key: {"name": key, "in": "path", "required": True, "schema": schema} for key, schema in path.items()}
    about = "How many bytes of the body are JSON; the tensors' own bytes follow. 0: the body is one raw tensor"
    header = {"name": "Inference-Header-Content-Length", "in": "header", "required": False, "description": about}
    found["headerLength"] = {**header, "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}}
    return found


def _responses() -> Json:
    content = {"application/json": {"schema": ref("Error")}}
    return {str(status): {"description": what, "content": content} for status, what in ERRORS.items()}
