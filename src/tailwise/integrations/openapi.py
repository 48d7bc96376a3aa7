"""The description of the service in OpenAPI 3.1, as a plain dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from .limits import Limits

JSON, CSV = "application/json", "text/csv"
# Media types of images, and how files of them are called.
IMAGES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/tiff": ".tif",
    "image/bmp": ".bmp",
    "image/webp": ".webp",
}
KINDS = (JSON, CSV, *IMAGES)

_NUMBER, _TEXT, _FLAG = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
_SAMPLE: dict[str, Any] = {
    "type": "object",
    "required": ["sample", "score", "threshold", "flagged", "p_value", "standardised"],
    "properties": {
        "sample": _TEXT,
        "score": {**_NUMBER, "description": "Higher is more anomalous."},
        "threshold": _NUMBER,
        "flagged": _FLAG,
        "p_value": {**_NUMBER, "description": "The chance that a normal scores at least as high."},
        "standardised": {"type": ["number", "null"], "description": "Above 3.0 lies .00135 of normals."},
        "cluster": {**_TEXT, "description": 'The cluster it is most like; "none" or "unknown".'},
        "held_to": {**_TEXT, "description": "Whose threshold applies, where kinds have their own."},
        "explanation": {"type": "object", "description": "As `tailwise explain --out NAME.json` has it."},
        "map": {
            "type": "object",
            "description": "Files as `tailwise score --maps` writes them, in base64, by their endings.",
            "additionalProperties": _TEXT,
        },
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "hint"],
            "properties": {"message": _TEXT, "hint": {**_TEXT, "description": "What to do next."}},
        }
    },
}
_FACTS = {
    "type": "object",
    "required": ["name", "fingerprint", "detector", "samples", "sample_shape", "features", "threshold"],
    "properties": {
        "name": _TEXT,
        "fingerprint": {**_TEXT, "description": "SHA-256 of the run's settings, which name digests of all its files."},
        "training_data": {"type": ["string", "null"], "description": "Digest of the samples that it was fitted on."},
        "created": _TEXT,
        "detector": _TEXT,
        "samples": {**_TEXT, "description": "What a sample is."},
        "sample_shape": {"type": "array", "items": {"type": "integer"}},
        "features": {"type": "array", "items": _TEXT},
        "threshold": _NUMBER,
        "false_alarms": _NUMBER,
        "has_maps": _FLAG,
    },
}
_REFUSALS = {
    400: "The request is malformed, or ended early.",
    401: "A token was needed.",
    404: "There is no such run.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body's type is none of those that are read.",
    422: "The body holds nothing that this run can score.",
    429: "Too many requests wait.",
    503: "No answer in time.",
}


def description(names: Sequence[str], limits: Limits, needs_token: bool) -> dict[str, Any]:
    """The service of runs of these names."""
    security: list[dict[str, list[str]]] = [{"token": []}] if needs_token else []
    refused = [401] if needs_token else []
    run = {"name": "run", "in": "path", "required": True, "schema": {"type": "string", "enum": list(names)}}
    flags = {
        "explain": "Say why each sample has its score; for at most 20 samples. Needs the run's training data.",
        "map": "Draw where in each sample the score comes from; for at most 20 samples, of detectors with maps.",
    }
    query = [
        {"name": name, "in": "query", "description": text, "schema": {"type": "boolean", "default": False}}
        for name, text in flags.items()
    ]
    said = "What `tailwise score` writes, for each sample."
    of_score = {
        "summary": "Score samples",
        "parameters": [run, *query],
        "requestBody": {"required": True, "content": _bodies()},
        "responses": {
            "200": {
                "description": said,
                "headers": {"X-Tailwise-Fingerprint": {"schema": _TEXT}},
                "content": {
                    JSON: {
                        "schema": {
                            "type": "object",
                            "required": ["run", "fingerprint", "samples"],
                            "properties": {
                                "run": _TEXT,
                                "fingerprint": _TEXT,
                                "samples": {"type": "array", "items": _SAMPLE},
                            },
                        }
                    },
                    CSV: {"schema": _TEXT},
                },
            },
            **_refusals(*(status for status in _REFUSALS if status != 401 or needs_token)),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tailwise",
            "version": __version__,
            "description": f"Scores by finished runs. A body holds at most {limits.body_mb} MB.",
        },
        "security": security,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/health": {"get": {**_get("Whether the service is up", _object("status")), "security": []}},
            "/version": {"get": _get("The version of tailwise", _object("tailwise"), *refused)},
            "/metrics": {"get": _get("Counts for Prometheus", _TEXT, *refused, kind="text/plain")},
            "/runs": {
                "get": _get("All runs", _object("runs", {"type": "array", "items": _FACTS}), *refused),
            },
            "/runs/{run}": {
                "get": {**_get("One run", _FACTS, 404, *refused), "parameters": [run]},
            },
            "/runs/{run}/score": {"post": of_score},
        },
    }


def _bodies() -> dict[str, Any]:
    row = {"type": "array", "description": "One sample: its numbers, in the order of the run's features."}
    named = {"type": "object", "description": "One sample: its numbers by feature.", "additionalProperties": True}
    rows = {"type": "array", "minItems": 1, "items": {"anyOf": [row, named]}}
    of_json = {"type": "object", "required": ["rows"], "properties": {"rows": rows}, "additionalProperties": False}
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {JSON: {"schema": of_json}, CSV: {"schema": _TEXT}, **dict.fromkeys(IMAGES, binary)}


def _object(name: str, schema: Mapping[str, Any] = _TEXT) -> dict[str, Any]:
    return {"type": "object", "required": [name], "properties": {name: schema}}


def _get(summary: str, schema: Mapping[str, Any], *refused: int, kind: str = JSON) -> dict[str, Any]:
    answer = {"description": summary, "content": {kind: {"schema": schema}}}
    return {"summary": summary, "responses": {"200": answer, **_refusals(*refused)}}


def _refusals(*statuses: int) -> dict[str, Any]:
    content = {JSON: {"schema": _ERROR}}
    return {str(status): {"description": _REFUSALS[status], "content": content} for status in sorted(statuses)}
