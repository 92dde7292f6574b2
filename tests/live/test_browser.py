"""A real browser: a page from another origin makes a database, uses it, and reads an error."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.handles import Service, wait_until

#: The page calls the service, tells what it saw, and proves with a server that sends no CORS
#: headers that this browser does enforce them.
PAGE = """<!doctype html><title>walkin</title><script>
async function call(body, token, more) {
  const headers = {"Content-Type": "application/json", ...more};
  if (token) headers["X-Walkin-Session"] = token;
  const answer = await fetch(SERVICE + "/sql", {
    method: "POST", headers, body: JSON.stringify(body),
  });
  return {
    status: answer.status,
    token: answer.headers.get("X-Walkin-Session"),
    ttl: answer.headers.get("X-Walkin-Ttl"),
    request: answer.headers.get("X-Request-Id"),
    times: answer.headers.get("Server-Timing"),
    cut: answer.headers.get("X-Walkin-Truncated"),
    replayed: answer.headers.get("Idempotency-Replayed"),
    json: await answer.json(),
  };
}
async function find() {
  const found = {origin: location.origin};
  found.made = await call({sql: 'CREATE TABLE kv(k, v); INSERT INTO kv VALUES("greeting", ?)',
                           args: ["hello"]});
  found.read = await call({sql: "SELECT * FROM kv"}, found.made.token);
  const write = {sql: "INSERT INTO kv VALUES(1, 2), (3, 4) RETURNING k", max_rows: 1};
  found.first = await call(write, found.made.token, {"Idempotency-Key": "mine"});
  found.again = await call(write, found.made.token, {"Idempotency-Key": "mine"});
  found.schema = await (await fetch(SERVICE + "/schema", {
    headers: {"X-Walkin-Session": found.made.token, "Accept": "text/markdown"},
  })).text();
  found.refused = await call({sql: "SELECT * FROM nowhere"}, found.made.token);
  found.forged = await call({sql: "SELECT 1"}, "wkn_forged");
  found.health = await (await fetch(SERVICE + "/healthz")).json();
  found.closed = await fetch(ELSEWHERE, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: "{}",
  }).then(() => "let through", (error) => error.name);
  return found;
}
find().catch((error) => ({failed: String(error)})).then((found) =>
  fetch("/report", {method: "POST", body: JSON.stringify(found)}));
</script>"""


@contextlib.contextmanager
def page_server(service_url: str) -> Iterator[tuple[str, "queue.Queue[Any]"]]:
    """Serve the page and collect what it reports."""
    reports: queue.Queue[Any] = queue.Queue()

    port = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            elsewhere = f"http://localhost:{port}/elsewhere"
            page = PAGE.replace("SERVICE", json.dumps(service_url))
            self._answer(page.replace("ELSEWHERE", json.dumps(elsewhere)).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/report":
                reports.put(json.loads(body))
            self._answer(b"")

        def do_OPTIONS(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}", reports
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def browser(program: str, url: str) -> Iterator[Path]:
    """A headless Chromium with a fresh profile on one page; nothing of it is left afterwards."""
    profile = Path(tempfile.mkdtemp(prefix="walkin-browser-"))
    log = profile / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                *"--headless --no-sandbox --disable-gpu --disable-quic --no-first-run".split(),
                *"--disable-background-networking --disable-component-update".split(),
                *"--disable-sync --disable-breakpad --disable-dev-shm-usage".split(),
                *"--no-proxy-server --password-store=basic --remote-debugging-port=0".split(),
                f"--user-data-dir={profile}",
                url,
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ} | dict.fromkeys(["HOME", "TMPDIR", "XDG_RUNTIME_DIR"], str(profile)),
            start_new_session=True,
        )
    try:
        yield log
    finally:
        for pid in _of_profile(profile):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)
        wait_until(lambda: not _of_profile(profile), 10, "no process of the browser is left")
        shutil.rmtree(profile, ignore_errors=True)


def _of_profile(profile: Path) -> list[int]:
    """The browser's processes: each of them has the profile in its command line or as its home."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                home = b"HOME=" + os.fsencode(profile)
                if os.fsencode(profile) in command or home in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
    return found


def test_page_of_another_origin_uses_the_service(
    service: Service, tool: Callable[[str], str]
) -> None:
    with (
        page_server(service.url) as (origin, reports),
        browser(tool("chromium"), origin + "/") as log,
    ):
        try:
            found = reports.get(timeout=60)
        except queue.Empty:
            raise AssertionError(log.read_text(errors="replace")) from None
    assert "failed" not in found, found
    assert found["origin"] == origin != service.url

    made = found["made"]
    assert (made["status"], made["json"]) == (200, {"rows_affected": 1})
    assert made["token"].startswith("wkn_")
    assert made["ttl"].isdigit()
    assert len(made["request"]) == 32

    read = found["read"]
    assert read["status"] == 200
    assert read["json"]["columns"] == ["k", "v"]
    assert read["json"]["rows"] == [["greeting", "hello"]]
    assert (read["token"], read["ttl"]) == (None, None)

    first, again = found["first"], found["again"]
    assert first["json"] == again["json"]
    assert (first["cut"], again["cut"]) == ("max_rows", "max_rows")
    assert (first["replayed"], again["replayed"]) == (None, "true")
    assert again["times"].startswith("queue;dur=")
    assert found["schema"].startswith("## table kv (3 rows)")

    refused = found["refused"]
    assert refused["status"] == 400
    assert refused["json"]["error"] == "invalid sql: no such table: nowhere"
    assert refused["json"]["request_id"] == refused["request"]
    assert (found["forged"]["status"], found["forged"]["json"]["error"]) == (
        404,
        "instance not found",
    )
    assert found["health"] == {"status": "ok"}
    assert found["closed"] == "TypeError", "this browser does not enforce CORS"
