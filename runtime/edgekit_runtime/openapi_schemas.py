"""The shapes of what the HTTP routes take and answer, as JSON Schema the way OpenAPI 3.0 has it. Plain values.

Refuses nothing."""

from typing import Any

from edgekit_runtime.protocols.v2_tensors import DATATYPES

Json = dict[str, Any]

ANY: Json = {}
TEXT: Json = {"type": "string"}
BYTES: Json = {"type": "string", "format": "binary"}
LIST: Json = {"type": "array", "items": ANY}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(required: str, **properties: Any) -> Json:
    """An object; `required` names the keys that must be there."""
    found: Json = {"type": "object", "properties": properties}
    return {**found, "required": required.split()} if required else found


def array_of(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


WORDS = array_of(TEXT)
FLAG: Json = {"type": "boolean"}
COUNT: Json = {"type": "integer", "minimum": 0}
PAGED: Json = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
TABLE: Json = {"type": "object"}
TRACE = object_of(
    "",
    **{key: {"nullable": True, "anyOf": [{"type": "integer"}, TEXT]} for key in ["trace_rate", "trace_count"]},
    log_frequency={"nullable": True, "anyOf": [{"type": "integer"}, TEXT]},
    trace_level={"nullable": True, "anyOf": [TEXT, array_of(TEXT)]},
    trace_file=ANY,
)
LOG = object_of(
    "",
    **{key: {"type": "boolean", "nullable": True} for key in ("log_info", "log_warning", "log_error")},
    log_verbose_level={**COUNT, "nullable": True},
    log_file={**ANY, "nullable": True},
    log_format=TEXT | {"nullable": True},
)
DATATYPE: Json = {"type": "string", "enum": list(DATATYPES)}
TENSOR = object_of(
    "name datatype shape", name=TEXT, datatype=DATATYPE, shape=array_of({"type": "integer", "minimum": -1})
)
VALUE = object_of(
    "name datatype shape", name=TEXT, datatype=DATATYPE, shape=array_of(COUNT, maxItems=16), parameters=TABLE, data=LIST
)
SCHEMAS: Json = {
    "Error": object_of("error", error=TEXT, hint=TEXT, code=COUNT, type=TEXT, message=TEXT),
    "Document": object_of("openapi paths", openapi=TEXT, paths=TABLE),
    "Alive": object_of("status", status=TEXT),
    "Ping": object_of("status", status=TEXT),
    "Health": object_of("live ready", live=FLAG, ready=FLAG),
    "Server": object_of("name version extensions", name=TEXT, version=TEXT, extensions=WORDS),
    "Models": object_of("models", models=WORDS),
    "ModelReady": object_of("name ready", name=TEXT, ready=FLAG),
    "Settings": TABLE,
    "Metadata": object_of(
        "name versions platform inputs outputs",
        **{"name": TEXT, "versions": WORDS, "platform": TEXT, "inputs": array_of(TENSOR), "outputs": array_of(TENSOR)},
    ),
    "Config": object_of("name input output", name=TEXT, input=array_of(TABLE), output=array_of(TABLE)),
    "Statistics": object_of("model_stats", model_stats=array_of(object_of("name version inference_stats", name=TEXT))),
    "InferRequest": object_of(
        "inputs",
        **{"id": {**TEXT, "maxLength": 1000}, "parameters": TABLE, "inputs": array_of(VALUE)},
        outputs=array_of(object_of("name", name=TEXT, parameters=TABLE)),
    ),
    "InferResponse": object_of(
        "model_name model_version outputs",
        **{"model_name": TEXT, "model_version": TEXT, "id": TEXT, "parameters": TABLE, "outputs": array_of(VALUE)},
    ),
    "Page": object_of("models", models=array_of(object_of("modelName modelUrl", modelName=TEXT)), nextPageToken=TEXT),
    "Descriptions": array_of(object_of("modelName modelVersion workers", modelName=TEXT, workers=array_of(TABLE))),
    "Form": object_of("data", data=BYTES),
    "IndexRequest": object_of("", ready=FLAG),
    "LoadRequest": object_of("", parameters=TABLE),
    "UnloadRequest": object_of("", parameters=object_of("", unload_dependents=FLAG)),
    "TraceRequest": {**TRACE, "additionalProperties": False},
    "LogRequest": {**LOG, "additionalProperties": False},
    "Regions": {"type": "array", "maxItems": 0, "items": ANY},
    "Index": array_of(object_of("name version state reason", name=TEXT, version=TEXT, state=TEXT, reason=TEXT)),
}


STATE = {"type": "string", "enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]}
STATUS = object_of("error_code error_message", error_code=TEXT, error_message=TEXT)
ONE = object_of("version state status", version=TEXT, state=STATE, status=STATUS)
ROWS = {**object_of("instances", instances=LIST, signature_name=TEXT), "not": {"required": ["inputs"]}}
COLUMNS = {**object_of("inputs", inputs=ANY, signature_name=TEXT), "not": {"required": ["instances"]}}
SCHEMAS |= {  # TensorFlow Serving's
    "Status": object_of("model_version_status", model_version_status=array_of(ONE), name=TEXT, ready=FLAG),
    "Signature": object_of("model_spec metadata", model_spec=TABLE, metadata=TABLE),
    "Predict": {"anyOf": [ROWS, COLUMNS]},
    "Predicted": {"anyOf": [object_of("predictions", predictions=LIST), object_of("outputs", outputs=ANY)]},
    "Examples": object_of("examples", examples=array_of(TABLE), context=TABLE, signature_name=TEXT),
    "Results": object_of("results", results=LIST),
}
