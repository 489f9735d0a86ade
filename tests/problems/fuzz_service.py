"""Requests that nobody would send, sent to a server: from its own OpenAPI document, and every text and moment we know.

Cases are drawn by schemathesis: half of them of names and moments that the service has, so that they are answered, a
quarter valid by the document, and a quarter not. Every answer is held to the document: its status is
listed for the route, its body and headers have the shape that is listed for the status.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SHARES = {"/v1/recommend": 6, "/v1/page": 3, "/v1/events": 4, "/healthz": 0, "/readyz": 0}
"""Of the cases by route; routes without a body get a few."""
ASKING = ("/v1/recommend", "/v1/page")
TEXT_FIELDS = ("canvas", "member_id", "country", "device", "language", "query", "source_title_id")
EVENT_FIELDS = ("event_id", "member_id", "title_id", "canvas", "country", "device", "query", "session_id", "action")

TEXTS = (
    '""', '" "', '"\\u0000"', '"a\\u0000b"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d"', '"\\ud83d\\ude00"',
    '"\\u001b[31m"', '"\\r\\n"', '"\\u202e"', '"\\u200b"', '"\\ufeff"', '"\\uffff"', '"%s %d {0} {x}"',
    '"\' OR 1=1 --"', '"../../etc/passwd"', '"<script>alert(1)</script>"', '"null"', '"NaN"', '"[bold]"', '"ZZ"', '"*"',
    json.dumps("e\u0301" * 200), json.dumps("\u05d0" * 512), json.dumps("x" * 513), json.dumps("x" * 100_001),
    "null", "true", "0", "-1", "1e400", "NaN", "-Infinity", "1" + "0" * 400, "1" + "0" * 5_000, "[]", "{}",
)  # fmt: skip
"""JSON values that stand where a text does."""
MOMENTS = (
    "2024-02-20T12:00:00Z", "2024-02-20T17:30:00+05:30", "2024-02-20T12:00:00-14:00", "2024-02-20T12:00:00+14:00",
    "2024-02-20T12:00:00.123456+00:01", "2024-02-20T12:00:00+05:30:15", "2024-02-29T23:59:60Z", "2024-02-30T00:00:00Z",
    "2024-02-20T12:00:00", "2024-02-20", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "1700-01-01T00:00:00Z", "1699-12-31T23:59:59Z",
    "1969-12-31T23:59:59Z", "2199-12-31T23:59:59-14:00", "2200-01-01T00:00:01Z", "1e18", "-1", "", "now",
)  # fmt: skip
NUMBERS = ("0", "1708430400", "1708430400000", "-62135596800", "253402300799", "1e18", "-1e18", "1e400", "NaN")
"""Moments as numbers: seconds or milliseconds since 1970."""
BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe",
    b'{"canvas": "\xff"}',
    b"[" * 50_000,
    b'{"a":' * 20_000,
    b"0" * 3_000_000,
)


@dataclass(frozen=True)
class Names:
    """What the service has."""

    canvases: Sequence[str]
    members: Sequence[str]
    titles: Sequence[str]
    countries: Sequence[str]


@dataclass
class Fuzzed:
    """How many requests were sent, and which were answered by an error of the server or off the document."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    server_errors: list[str] = field(default_factory=list)
    undocumented: list[str] = field(default_factory=list)

    def add(self, route: str, status: int, sent: str, complaints: Sequence[str]) -> None:
        """Count one answer."""
        self.requests += 1
        self.statuses[f"{route} {status}"] += 1
        if status >= 500:
            self.server_errors.append(f"{route} {status}: {sent[:300]}")
        elif complaints:
            self.undocumented.append(f"{route} {status}: {'; '.join(complaints)[:600]} for {sent[:300]}")


@dataclass(frozen=True)
class Drawing:
    """How many cases are drawn from which seed, and where they go."""

    cases: int
    start: int
    session: requests.Session
    found: Fuzzed


def fuzz(url: str, names: Names, cases: int, start: int, every: int = 1) -> Fuzzed:
    """Send about `cases` drawn requests and every text and moment of the lists, and return what came of them.

    Args:
        url: Of the server, without a slash at its end.
        names: What the service has.
        cases: Drawn requests.
        start: The seed: the same requests are sent for the same number.
        every: How many of the listed texts and moments are sent: one of so many.
    """
    document = requests.get(f"{url}/openapi.json", timeout=30).json()
    found = Fuzzed()
    load_all_checks()
    with requests.Session() as session:
        _draw(url, names, document, Drawing(cases, start, session, found))
        listed, document_of = [*_texts(names), *_moments(names), *_bodies()], Document(document)
        for route, body in listed[::every]:
            sent = {"data": body, "headers": {"content-type": "application/json"}}
            answer = session.post(f"{url}{route}", **sent, timeout=60)  # type: ignore[arg-type]
            found.add(route, answer.status_code, repr(body), document_of.complaints(route, answer))
    return found


class Document:
    """What an OpenAPI document says of answers to POST, read without schemathesis: one checks the other."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths, self._components = document["paths"], {"components": document["components"]}
        self._validators: dict[tuple[str, str], Any] = {}

    def complaints(self, route: str, answer: requests.Response) -> list[str]:
        """Return what is not as documented of one answer."""
        listed, status = self._paths[route]["post"]["responses"], str(answer.status_code)
        if status not in listed:
            return ["the status is not in the document"]
        if (route, status) not in self._validators:
            schema = listed[status]["content"]["application/json"]["schema"]
            self._validators[route, status] = jsonschema_rs.validator_for({**schema, **self._components})
        return [str(error) for error in self._validators[route, status].iter_errors(answer.json())]


def likely(document: dict[str, Any], names: Names) -> dict[str, Any]:
    """Return a document that allows only what the service has, so that most of what is drawn from it is answered.

    A choice between a name and any other text would not do: it is simplified to any text, and nearly all is a 404.
    """
    changed = copy.deepcopy(document)
    schemas = changed["components"]["schemas"]
    asking = schemas["RecommendRequest"]
    event = schemas["EventsRequest"]["properties"]["events"]["items"]
    real: dict[str, Any] = {
        "canvas": {"enum": list(names.canvases)},
        "member_id": {"enum": [*names.members, "nobody"]},
        "source_title_id": {"enum": list(names.titles)},
        "title_id": {"enum": list(names.titles)},
        "country": {"enum": [*names.countries, "QQ"]},
        "query": {"type": "string", "minLength": 1, "maxLength": 60},
        "at": {"enum": [None, *MOMENTS[:5]]},
        "event_at": {"enum": list(MOMENTS[:4])},
        "action": {"enum": ["play", "thumbs_up", "search", "impression"]},
        **{name: {"type": "number", "minimum": 0, "maximum": 1} for name in ("progress", "propensity", "duration_s")},
    }
    for properties in (asking["properties"], event["properties"]):
        properties |= {name: real[name] for name in real.keys() & properties.keys()}
    # A hundred titles in each row of a page are work for the machine and tell no more than twenty.
    asking["properties"]["k"] = {**asking["properties"]["k"], "maximum": 20}
    del asking["properties"]["context"]
    del event["properties"]["recorded_at"]
    asking["required"] = ["canvas", "query", "source_title_id"]
    event["required"] = [*event["required"], "title_id"]
    return changed


def _draw(url: str, names: Names, document: dict[str, Any], drawing: Drawing) -> None:
    variants = (
        (GenerationMode.POSITIVE, likely(document, names), 2),
        (GenerationMode.POSITIVE, document, 1),
        (GenerationMode.NEGATIVE, document, 1),
    )
    for number, (mode, variant, weight) in enumerate(variants):
        for result in schemathesis.openapi.from_dict(variant).get_all_operations():
            operation = result.ok()
            share = SHARES[operation.path]
            if share or mode is GenerationMode.POSITIVE:
                examples = max(1, -(-drawing.cases * share * weight // (4 * sum(SHARES.values()))))
                _draw_some(url, operation, mode, examples, drawing.start + number, drawing)


def _draw_some(url: str, operation: Any, mode: GenerationMode, examples: int, start: int, drawing: Drawing) -> None:
    def send(case: schemathesis.Case) -> None:
        answer = case.call(base_url=url, session=drawing.session, timeout=60)
        complaints = []
        try:
            case.validate_response(answer, checks=CHECKS)
        except (FailureGroup, AssertionError) as error:
            complaints = [str(one) for one in getattr(error, "exceptions", [error])]
        drawing.found.add(operation.path, answer.status_code, repr(case.body), complaints)

    limits = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=False,
    )
    seed(start)(limits(given(case=operation.as_strategy(generation_mode=mode))(send)))()


def _texts(names: Names) -> Iterator[tuple[str, bytes]]:
    yield from _request_texts(names)
    for name in EVENT_FIELDS:
        for number, text in enumerate(TEXTS):
            yield "/v1/events", _event(names, f"text-{name}-{number}", {name: text})
    for number, text in enumerate(TEXTS):
        for name in ("progress", "duration_s", "position", "seq", "season"):
            yield "/v1/events", _event(names, f"number-{name}-{number}", {name: text})


def _request_texts(names: Names) -> Iterator[tuple[str, bytes]]:
    for route in ASKING:
        for name in TEXT_FIELDS:
            for text in TEXTS:
                yield route, _object({"canvas": f'"{names.canvases[0]}"', name: text})
        for text in TEXTS:
            yield route, _object({"canvas": '"home"', "context": _object({"weather": text}).decode()})
            if text.startswith('"'):
                yield route, _object({"canvas": '"home"', "context": f"{{{text}: 1}}"})
                yield route, f'{{"canvas": "home", {text}: 1}}'.encode()
    for canvas in names.canvases:
        for text in TEXTS:
            requested = {"canvas": json.dumps(canvas), "query": text, "source_title_id": json.dumps(names.titles[0])}
            yield "/v1/recommend", _object(requested)


def _moments(names: Names) -> Iterator[tuple[str, bytes]]:
    values = [*map(json.dumps, MOMENTS), *NUMBERS]
    for moment in values:
        for member in (names.members[0], "nobody", None):
            for route in ASKING:
                requested = {"canvas": f'"{names.canvases[0]}"', "member_id": json.dumps(member), "at": moment}
                yield route, _object(requested)
    for canvas in names.canvases:
        for moment in values[:16]:
            requested = {"canvas": json.dumps(canvas), "query": '"a"', "at": moment, "timeout_ms": "1"}
            yield "/v1/recommend", _object({**requested, "source_title_id": json.dumps(names.titles[0])})
    for number, moment in enumerate(values):
        for name in ("event_at", "recorded_at"):
            yield "/v1/events", _event(names, f"moment-{name}-{number}", {name: moment})


def _bodies() -> Iterator[tuple[str, bytes]]:
    for body in BODIES:
        for route in (*ASKING, "/v1/events"):
            yield route, body


def _object(fields: dict[str, str]) -> bytes:
    """Write an object whose values are JSON already, also where they are none that Python would write."""
    return ("{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in fields.items()) + "}").encode()


def _event(names: Names, event_id: str, changes: dict[str, str]) -> bytes:
    event = {"event_id": event_id, "member_id": names.members[0], "action": "play", "canvas": names.canvases[0]}
    fields = {name: json.dumps(value) for name, value in {**event, "title_id": names.titles[0]}.items()}
    return _object({"events": "[" + _object({**fields, **changes}).decode() + "]"})
