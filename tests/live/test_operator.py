"""What an operator sees of a running service: a line for each call, the metrics, the readiness."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.handles import Client, Service, free_port, wait_until

_CALL = re.compile(r"INFO walkin\.calls: call (.*)")


def lines_of(service: Service) -> list[dict[str, str]]:
    return [
        dict(field.split("=", 1) for field in found.group(1).split(" "))
        for found in _CALL.finditer(service.log())
    ]


def read_metrics(port: int) -> dict[str, float]:
    """Every sample by its name and labels."""
    page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(page.text):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


# --- the log ---


def test_each_call_has_one_line(make_service: Callable[..., Service]) -> None:
    service = make_service(requests_per_min=4)
    client = service.client()
    answers = [
        client.sql("SELECT 1"),
        client.sql("SELEC"),
        client.post(b"{"),
        client.get("/healthz"),
        client.get("/nowhere/of/mine"),
        service.client("wkn_" + "x" * 107).sql("SELECT 1"),
        client.sql("SELECT 1"),
    ]
    assert [answer.status for answer in answers] == [200, 400, 400, 200, 404, 404, 429]
    ids = [answer.headers["x-request-id"] for answer in answers]
    lines = wait_until(
        lambda: [line for line in lines_of(service) if line["request_id"] in ids], 5, "the lines"
    )
    wait_until(lambda: {line["request_id"] for line in lines_of(service)} >= set(ids), 5, "all")
    lines = [line for line in lines_of(service) if line["request_id"] in ids]
    assert [line["request_id"] for line in lines] == ids
    assert [int(line["status"]) for line in lines] == [answer.status for answer in answers]
    assert [line["path"] for line in lines] == [
        *["/sql"] * 3,
        "/healthz",
        "other",
        *["/sql"] * 2,
    ]
    assert [line["code"] for line in lines] == [
        "",
        "",
        "invalid_json",
        "",
        "path_not_found",
        "instance_not_found",
        "rate_limited",
    ]
    assert [line["instance"] for line in lines] == [client.instance] * 2 + [""] * 5
    assert [int(line["sent"]) for line in lines] == [len(answer.text) for answer in answers]
    assert int(lines[0]["received"]) == len(b'{"sql": "SELECT 1"}')
    assert all(0 < float(line["ms"]) < 10_000 for line in lines)
    assert "nowhere" not in service.log()


def test_what_is_not_http_has_a_line_too(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 5) as sock:
        sock.sendall(b"rubbish\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65_536), b"")).decode()
    (request_id,) = re.findall(r"x-request-id: (\w+)", answer)
    line = wait_until(
        lambda: [line for line in lines_of(service) if line["request_id"] == request_id], 5
    )[0]
    assert (line["status"], line["code"], line["path"]) == ("400", "invalid_http", "none")


def test_without_lines_for_calls_faults_are_still_told(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(log_calls="no")
    client = service.client()
    client.sql("SELECT 1")
    os.kill(service.cell(client), signal.SIGSEGV)
    wait_until(lambda: "died of SIGSEGV" in service.log(), 5, "the death is logged")
    assert lines_of(service) == []


def test_as_json_every_line_is_an_object(make_service: Callable[..., Service]) -> None:
    service = make_service(log_format="json")
    client = service.client()
    client.sql("SELECT 1")
    os.kill(service.cell(client), signal.SIGSEGV)
    client.sql("SELECT 2")

    def events() -> list[dict[str, Any]]:
        lines = service.log().splitlines()
        return [json.loads(line) for line in lines if not line.startswith("walkin listens")]

    wait_until(lambda: sum(event["message"] == "call" for event in events()) >= 2, 5, "two calls")
    deaths = [event for event in events() if "died of SIGSEGV" in event["message"]]
    assert [(event["level"], event["logger"]) for event in deaths] == [("warning", "walkin.zygote")]


# --- metrics ---


def test_metrics_follow_what_happens(make_service: Callable[..., Service]) -> None:
    port = free_port()
    service = make_service(metrics_port=port, ttl_s=3, creations_per_min=1, requests_per_min=60)
    client = service.client()
    assert client.sql("SELECT 1").status == 200
    assert client.sql("SELEC").status == 400
    assert service.client().sql("SELECT 1").status == 429
    wait_until(lambda: read_metrics(port)["walkin_instances"] == 1, 5, "the zygote's word")
    found = read_metrics(port)
    assert found["walkin_calls_total{path=/sql,status=200}"] == 1
    assert found["walkin_calls_total{path=/sql,status=400}"] == 1
    assert found["walkin_calls_total{path=/sql,status=429}"] == 1
    assert found["walkin_refusals_total{code=creation_limited}"] == 1
    assert found["walkin_call_duration_seconds_bucket{le=+Inf}"] == 3 + healthz(found)
    assert found["walkin_call_duration_seconds_count"] == 3 + healthz(found)
    assert found["walkin_call_duration_seconds_sum"] > 0
    assert found["walkin_creations_total"] == 1
    assert found["walkin_cells{state=live}"] == 1
    assert found["walkin_connections"] >= 1
    assert found["walkin_lines"] == 1
    assert found["walkin_queued_calls"] == 0
    assert found["walkin_zygote_up"] == 1
    assert found["walkin_disk_free_bytes"] > 0
    assert found["walkin_disk_size_bytes"] >= found["walkin_disk_free_bytes"]
    os.kill(service.cell(client), signal.SIGSEGV)
    wait_until(
        lambda: read_metrics(port).get("walkin_cell_deaths_total{cause=SIGSEGV}") == 1, 5, "a death"
    )
    wait_until(lambda: read_metrics(port)["walkin_reaped_total"] == 1, 15, "it is reaped")
    assert read_metrics(port)["walkin_instances"] == 0


def healthz(found: dict[str, float]) -> float:
    """What the supervisor asked at the start."""
    return found.get("walkin_calls_total{path=/healthz,status=200}", 0)


def test_metrics_are_not_at_the_callers_port_nor_the_service_at_theirs(
    make_service: Callable[..., Service],
) -> None:
    port = free_port()
    service = make_service(metrics_port=port)
    assert service.client().get("/metrics").status == 404
    private = Client(f"http://127.0.0.1:{port}")
    for answer in (private.sql("SELECT 1"), private.get("/healthz"), private.get("/")):
        assert answer.status == 404
        assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-origin" not in private.get("/metrics").headers
    private.close()


def test_each_worker_has_metrics_of_its_own(make_service: Callable[..., Service]) -> None:
    first = free_port()
    ports = first, first + 1
    service = make_service(metrics_port=first, workers=2, requests_per_min=0, creations_per_min=0)
    for _ in range(40):
        service.client().sql("SELECT 1")
    pages = [read_metrics(port) for port in ports]
    made = [page["walkin_creations_total"] for page in pages]
    assert sum(made) == 40
    assert {page["walkin_zygote_up"] for page in pages} == {1}


def test_metrics_without_a_zygote_say_so(make_service: Callable[..., Service]) -> None:
    port = free_port()
    service = make_service(metrics_port=port)
    zygote = service.signal("zygote", signal.SIGSTOP)
    try:
        found = wait_until(
            lambda: not (page := read_metrics(port))["walkin_zygote_up"] and page, 10, "it is gone"
        )
        assert "walkin_instances" not in found
        assert "walkin_calls_total{path=/healthz,status=200}" in found
    finally:
        os.kill(zygote, signal.SIGCONT)
    wait_until(lambda: read_metrics(port)["walkin_zygote_up"], 10, "it is back")


# --- readiness ---


def test_a_node_is_ready_soon_after_its_start(service: Service, client: Client) -> None:
    answer = wait_until(lambda: (said := client.get("/readyz")).status == 200 and said, 5, "ready")
    assert answer.json["status"] == "ready"
    assert set(answer.json["parts"]) == {"zygote", "reaper", "disk", "rate_limit_store"}
    assert set(answer.json["parts"].values()) == {"ok"}


def test_it_says_which_part_is_not_ready(make_service: Callable[..., Service]) -> None:
    service = make_service()
    client = service.client()
    wait_until(lambda: client.get("/readyz").status == 200, 5, "ready")
    zygote = service.signal("zygote", signal.SIGSTOP)
    try:
        refused = wait_until(
            lambda: (said := client.get("/readyz")).status != 200 and said, 10, "not ready"
        )
    finally:
        os.kill(zygote, signal.SIGCONT)
    assert (refused.status, refused.code) == (503, "busy")
    assert refused.headers["retry-after"]
    assert refused.json["parts"]["zygote"] == "does not answer"
    assert refused.json["parts"]["disk"] == "ok"
    wait_until(lambda: client.get("/readyz").status == 200, 10, "ready again")


def test_a_reaper_that_stands_still_is_told(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    client = service.client()
    wait_until(lambda: client.get("/readyz").status == 200, 5, "ready")
    reaper = service.signal("reaper", signal.SIGSTOP)
    try:
        refused = wait_until(
            lambda: (said := client.get("/readyz")).status != 200 and said, 15, "not ready"
        )
        assert refused.json["parts"]["reaper"].startswith("has said nothing for ")
        assert client.sql("SELECT 1").status == 200, "and databases are made all the same"
    finally:
        os.kill(reaper, signal.SIGCONT)
    wait_until(lambda: client.get("/readyz").status == 200, 10, "ready again")
