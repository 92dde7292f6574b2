"""The promise: openapi.json is valid OpenAPI 3.1, complete, served as it lies here, and true.

All that the server does is in it and nothing else; its codes are those of sandbox.codes; its
examples are real answers; and whatever schemathesis makes up from it is answered as it says.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.definitions import OPENAPI_31
from starlette.routing import Route

from sandbox import receipts
from sandbox.calls import _MARKDOWN_CAPS
from sandbox.codes import CODES
from sandbox.forms import FOR_ROWS, MAX_ROWS, MEDIA_TYPES
from sandbox.policy import HEAP_BYTES, LIMITS, MAX_PAGES
from tests.handles import ROOT, Client, Service
from walkin.app import build
from walkin.bodies import _BODY_TIMEOUT_S, _CAPS, _CHOICES, _SWITCHES, MAX_BODY_BYTES
from walkin.connection import MAX_FIELDS, MAX_HEAD_BYTES
from walkin.crowd import Crowd
from walkin.ledger import Ledger
from walkin.patience import HEAD_S
from walkin.settings import FRONT_ROWS, Secret, from_environ
from walkin.tokens import Seal

TEXT = (ROOT / "openapi.json").read_text()
DOCUMENT = json.loads(TEXT)
METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}
#: Answers outside any operation: the path or the method is not in the document.
OUTSIDE = {
    "invalid_http": "NotHttp",
    "path_not_found": "PathNotFound",
    "method_not_allowed": "MethodNotAllowed",
}

_REGISTRY: Registry[Any] = Registry().with_resource(
    "urn:openapi", DRAFT202012.create_resource(DOCUMENT)
)


def at(pointer: str) -> Any:
    """What lies at a JSON pointer of the document."""
    found = DOCUMENT
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def nodes(node: Any = DOCUMENT, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document with its JSON pointer, outside of the examples' values."""
    if isinstance(node, dict):
        yield pointer, node
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for name, child in children:
        if isinstance(child, dict | list) and name != "examples":
            step = str(name).replace("~", "~0").replace("/", "~1")
            yield from nodes(child, f"{pointer}/{step}")


def schema_errors(pointer: str, value: Any) -> list[str]:
    """What the schema at a pointer has against a value."""
    validator = Draft202012Validator({"$ref": f"urn:openapi#{pointer}"}, registry=_REGISTRY)
    return [error.message for error in validator.iter_errors(value)]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS & item.keys():
            yield path, method, item[method]


def response(operation: dict[str, Any], status: str) -> dict[str, Any]:
    found = operation["responses"][status]
    return at(found["$ref"].removeprefix("#")) if "$ref" in found else found


def codes_of(answer: dict[str, Any]) -> set[str]:
    _, narrowed = answer["content"]["application/json"]["schema"]["allOf"]
    return set(narrowed["properties"]["code"]["enum"])


def table_rows(heading: str) -> list[list[str]]:
    """The cells of the table that begins with `heading` in the introduction."""
    lines = DOCUMENT["info"]["description"].splitlines()
    rows = []
    for line in lines[lines.index(heading) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


# --- the document by itself ---


def test_it_is_valid_openapi_3_1() -> None:
    validator = Draft202012Validator(OPENAPI_31)
    assert [error.message for error in validator.iter_errors(DOCUMENT)] == []


def test_every_schema_is_valid_json_schema() -> None:
    schemas = [node["schema"] for _, node in nodes() if isinstance(node.get("schema"), dict)]
    schemas += DOCUMENT["components"]["schemas"].values()
    assert len(schemas) > 20
    for schema in schemas:
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    used = {node["$ref"] for _, node in nodes() if "$ref" in node}
    for reference in used:
        assert at(reference.removeprefix("#")) is not None
    there = {
        f"#/components/{kind}/{name}"
        for kind, items in DOCUMENT["components"].items()
        for name in items
    }
    assert there - used == {f"#/components/responses/{name}" for name in OUTSIDE.values()}


def test_every_operation_has_a_name_of_its_own_a_summary_and_a_tag() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for _, _, operation in operations():
        assert operation["summary"]
        assert set(operation["tags"]) <= tags


def test_everything_a_caller_sends_or_gets_is_described() -> None:
    components = DOCUMENT["components"]
    described = [*components["parameters"].values(), *components["headers"].values()]
    described += components["responses"].values()
    for name in components["schemas"].keys() - {"Blob", "Infinity", "Health"}:
        described += components["schemas"][name].get("properties", {}).values()
    assert all(part["description"].endswith(".") for part in described)


def test_it_is_written_with_two_spaces_and_a_newline_at_the_end() -> None:
    assert json.dumps(DOCUMENT, indent=2, ensure_ascii=False) + "\n" == TEXT


def test_version_and_license_are_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert DOCUMENT["info"]["version"] == project["version"]
    assert DOCUMENT["info"]["license"]["identifier"] == project["license"]
    assert DOCUMENT["info"]["summary"] == project["description"]


# --- the document and the code ---


def test_the_server_serves_these_bytes(client: Client) -> None:
    assert client.http.get("/openapi.json").content == TEXT.encode()


def test_paths_and_methods_are_those_of_the_application() -> None:
    application = build(from_environ({}), Seal((Secret("k" * 32),)), Ledger(), Crowd(16))
    routes: dict[str, set[str]] = {}
    straight = application._app  # type: ignore[attr-defined]
    for route in straight._app.routes:
        assert isinstance(route, Route)
        assert route.methods
        path = route.path.replace(":path}", "}")
        routes.setdefault(path, set()).update(method.lower() for method in route.methods)
    assert routes == {path: METHODS & item.keys() for path, item in DOCUMENT["paths"].items()}


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_a_method_that_is_not_in_it_is_refused_and_allow_lists_those_that_are(
    client: Client, path: str
) -> None:
    documented = {method.upper() for method in METHODS & DOCUMENT["paths"][path].keys()}
    for method in {method.upper() for method in METHODS} - documented:
        refused = client.http.request(method, path)
        assert refused.status_code == 405, method
        assert set(refused.headers["allow"].split(", ")) == documented


def test_its_codes_are_those_of_the_table() -> None:
    assert DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]["enum"] == list(CODES)


def test_each_status_has_the_codes_that_the_table_gives_it() -> None:
    documented = {
        (int(status), code)
        for _, method, operation in operations()
        for status in operation["responses"]
        if int(status) >= 400 and method != "head"
        for code in codes_of(response(operation, status))
    }
    outside = {
        (CODES[code].status, code)
        for name in OUTSIDE.values()
        for code in codes_of(DOCUMENT["components"]["responses"][name])
    }
    assert len(outside) == len(OUTSIDE)
    assert documented | outside == {(row.status, row.name) for row in CODES.values()}
    assert documented & outside == set()


def test_its_table_of_errors_is_the_table() -> None:
    rows = table_rows("| code | status | retryable | `error` begins with | what to do |")
    assert [row[:4] for row in rows] == [
        [row.name, str(row.status), "yes" if row.retryable else "no", row.begins]
        for row in CODES.values()
    ]
    assert all(advice.endswith(".") for *_, advice in rows)


def test_its_limits_are_those_of_the_code() -> None:
    limits = {what: limit for what, limit, _ in table_rows("| what | limit | beyond it |")}
    defaults = {row.name: int(row.default) for row in FRONT_ROWS if row.default.isdecimal()}
    assert limits["request head"] == (
        f"{MAX_HEAD_BYTES >> 10} KiB and {MAX_FIELDS} fields, within {HEAD_S:.0f} seconds"
    )
    assert (
        limits["request body"] == f"{MAX_BODY_BYTES:,} bytes, within {_BODY_TIMEOUT_S:.0f} seconds"
    )
    assert limits["one call"] == f"{defaults['query_timeout_ms'] // 1000} seconds of wall clock"
    assert limits["one database"] == f"10 MB ({MAX_PAGES:,} pages of 4,096 bytes)"
    assert limits["one answer"] == f"{MAX_ROWS:,} rows or about 1 MB of rows"
    assert limits["one value, or one stored row"] == f"{LIMITS['LENGTH'] >> 20} MiB"
    assert limits["memory of a query"] == f"{HEAP_BYTES >> 20} MiB"
    assert limits["calls"] == f"{defaults['requests_per_min']} a minute for each client address"
    assert limits["new databases"] == (
        f"{defaults['creations_per_min']} a minute for each client address"
    )
    assert f"{defaults['ttl_s']} seconds from creation" in DOCUMENT["info"]["description"]


# --- its examples ---


def _examples() -> Iterator[tuple[str, str, Any]]:
    """Every example: where it is, the schema it belongs to, its value."""
    for pointer, node in nodes():
        examples = node.get("examples")
        if isinstance(examples, dict) and "schema" in node:
            for name, example in examples.items():
                yield f"{pointer} {name}", f"{pointer}/schema", example["value"]
        elif isinstance(examples, list):
            for number, value in enumerate(examples):
                yield f"{pointer} {number}", pointer, value


def test_every_example_fits_its_schema() -> None:
    examples = list(_examples())
    assert len(examples) > 40
    for where, schema, value in examples:
        assert schema_errors(schema, value) == [], where


def test_every_example_of_an_error_is_a_row_of_the_table() -> None:
    errors = [value for _, _, value in _examples() if isinstance(value, dict) and "code" in value]
    assert {error["code"] for error in errors} > {row.name for row in CODES.values()} - {
        row.name for row in CODES.values() if row.status == 400
    }
    for error in errors:
        row = CODES[error["code"]]
        assert error["retryable"] is row.retryable
        assert re.match(re.escape(row.begins) + "($|: )", error["error"])


_SQL = DOCUMENT["paths"]["/sql"]["post"]
_CALLS = _SQL["requestBody"]["content"]["application/json"]["examples"]
_FORMS = _SQL["responses"]["200"]["content"]
_SCHEMAS = DOCUMENT["paths"]["/schema"]["get"]["responses"]["200"]["content"]
#: What of a call's cost no two runs have alike.
_VARYING = ("vm_steps", "memory_bytes")


@pytest.mark.parametrize("name", _CALLS)
def test_an_example_call_gives_the_answer_of_the_same_name(client: Client, name: str) -> None:
    ((status, documented),) = [
        (int(status), answers[name]["value"])
        for status in _SQL["responses"]
        if name in (answers := response(_SQL, status)["content"]["application/json"]["examples"])
    ]
    answer = client.post(json.dumps(_CALLS[name]["value"]).encode())
    given = answer.json
    if status >= 400:
        assert given["request_id"] == answer.headers["x-request-id"]
        given["request_id"] = documented["request_id"]
    if "stats" in documented:
        assert given["stats"].keys() == documented["stats"].keys()
        given["stats"] |= {name: documented["stats"][name] for name in _VARYING}
    assert (answer.status, given) == (status, documented)


def test_every_option_has_an_example_and_every_example_is_of_a_documented_kind() -> None:
    options = set(DOCUMENT["components"]["schemas"]["Call"]["properties"])
    shown = {name for call in _CALLS.values() for name in call["value"]}
    assert options - shown == {"max_bytes"}
    answers = _FORMS["application/json"]["examples"]
    for name in _CALLS.keys() & answers.keys():
        value = _CALLS[name]["value"]
        kind = "Plans" if "explain" in value else "Results" if "each" in value else "Result"
        pointer = f"/components/schemas/{kind}"
        assert schema_errors(pointer, answers[name]["value"]) == [], name


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        (media_type, name)
        for media_type, form in _FORMS.items()
        for name in form["examples"]
        if media_type != "application/json"
    ],
)
def test_an_example_call_gives_the_lines_of_the_same_name(
    client: Client, media_type: str, name: str
) -> None:
    answer = client.post(json.dumps(_CALLS[name]["value"]).encode(), Accept=media_type)
    assert answer.status == 200
    assert answer.headers["content-type"].partition(";")[0] == media_type
    assert answer.headers["vary"] == "Accept"
    assert answer.text == _FORMS[media_type]["examples"][name]["value"]
    assert answer.headers.get("x-walkin-truncated") == ("max_rows" if name == "budget" else None)


@pytest.mark.parametrize("media_type", _SCHEMAS)
def test_the_schema_of_an_example_is_the_one_that_it_shows(client: Client, media_type: str) -> None:
    client.post(json.dumps(_CALLS["cities"]["value"]).encode())
    sent = {"X-Walkin-Session": str(client.token), "Accept": media_type}
    answer = client.http.get("/schema", headers=sent)
    assert answer.headers["content-type"].partition(";")[0] == media_type
    given = answer.json() if media_type == "application/json" else answer.text
    assert given == _SCHEMAS[media_type]["examples"]["cities"]["value"]


def test_its_forms_are_those_of_the_code() -> None:
    assert list(_FORMS) == [MEDIA_TYPES[form] for form in sorted(FOR_ROWS)]
    responses = DOCUMENT["components"]["responses"]
    (refused,) = responses["NotAcceptable"]["content"]["application/json"]["examples"].values()
    assert refused["value"]["hint"].endswith(" as " + ", ".join(_FORMS))


def test_its_caps_are_those_of_the_code() -> None:
    properties = DOCUMENT["components"]["schemas"]["Call"]["properties"]
    assert {name: properties[name]["maximum"] for name in _CAPS} == _CAPS
    assert {name for name, one in properties.items() if "boolean" in one.get("type", [])} == (
        _SWITCHES
    )
    for name, choices in _CHOICES.items():
        assert properties[name]["enum"] == [*choices, None]
    for name, most in _MARKDOWN_CAPS.items():
        assert f"{most:,}" in properties[name]["description"]
    key = DOCUMENT["components"]["parameters"]["IdempotencyKey"]["description"]
    assert f"{receipts.MOST} answers" in key
    assert f"{receipts.MOST_BYTES >> 10} KB" in key
    assert f"{receipts.ANSWER_BYTES >> 10} KB" in key


def test_a_relation_that_cannot_be_read_is_described_too(client: Client) -> None:
    client.sql(
        "CREATE TABLE t(a REFERENCES u, b AS (a + 1) STORED, c DEFAULT 1, PRIMARY KEY (c, a));"
        "CREATE INDEX i ON t(a + 1, b); CREATE VIEW v AS SELECT a FROM t;"
        "CREATE VIEW w AS SELECT nope FROM t;"
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END;"
        "CREATE VIRTUAL TABLE f USING fts5(x); CREATE VIRTUAL TABLE r USING rtree(i, x, y)"
    )
    answer = client.http.get("/schema", headers={"X-Walkin-Session": str(client.token)}).json()
    assert schema_errors("/components/schemas/Schema", answer) == []
    assert [one["name"] for one in answer["tables"]] == ["t", "f", "r"]
    assert "error" in answer["views"][1]


# --- what schemathesis makes up ---

_CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 1,
        "generation": {"mode": "all", "deterministic": True},
        # No schema describes SQL, and a made-up token is nobody's: what fits the schema may still
        # be refused for these reasons; a key is used for several calls.
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404", "409"]},
            "negative_data_rejection": {"expected-statuses": ["4xx"]},
            # No token is a wrong token: never 401.
            "missing_required_header": {"expected-statuses": ["400", "404", "406"]},
        },
    }
)
_BOUNDED = settings(max_examples=100, deadline=None, derandomize=True, database=None)
_API = schemathesis.openapi.from_dict(DOCUMENT, config=_CONFIG)


@_API.parametrize()
@_BOUNDED
def test_the_server_keeps_it(case: schemathesis.Case, service: Service) -> None:
    case.validate_response(case.call(base_url=service.url))


@pytest.fixture(scope="module")
def token(service: Service) -> str:
    created = service.client()
    created.sql("SELECT 1")
    assert created.token
    return created.token


@_API.include(operation_id=["runSql", "getSchema", "headSchema"]).parametrize()
@_BOUNDED
def test_the_server_keeps_it_for_the_holder_of_a_token(
    case: schemathesis.Case, service: Service, token: str
) -> None:
    case.headers["X-Walkin-Session"] = token
    case.validate_response(case.call(base_url=service.url))


@pytest.mark.parametrize("media_type", [*list(_FORMS)[1:], "application/pdf"])
@_API.include(operation_id=["runSql", "getSchema"]).parametrize()
@settings(_BOUNDED, max_examples=20)
def test_the_server_keeps_it_in_every_form(
    case: schemathesis.Case, service: Service, token: str, media_type: str
) -> None:
    case.headers.update({"X-Walkin-Session": token, "Accept": media_type})
    response = case.call(base_url=service.url)
    case.validate_response(response, excluded_checks=[positive_data_acceptance])


def test_a_value_in_a_row_has_a_form_that_it_describes(client: Client) -> None:
    values = "NULL, 1, -1.5, 'text', x'00ff', 9e999, -9e999, 0x7fffffffffffffff"
    answer = client.sql(f"SELECT {values}")
    assert len(answer.rows[0]) == 8
    assert schema_errors("/components/schemas/Result", answer.json) == []
