"""A change while the service runs: new keys, new front desks, and not one call is lost by it."""

import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.handles import Answer, Client, Service, is_running, wait_until


@contextmanager
def callers(service: Service, count: int = 6) -> Iterator[list[Answer]]:
    """Calls without pause, half of them over connections that stay; yields all the answers."""
    is_over = threading.Event()
    answers: list[Answer] = []

    def call(number: int) -> None:
        client = service.client()
        client.sql("CREATE TABLE kept(x)")
        token = client.token
        while not is_over.is_set():
            answers.append(client.sql("INSERT INTO kept VALUES (1)"))
            if number % 2:
                client.close()
                client = Client(service.url, token)
        client.close()

    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(call, number) for number in range(count)]
        try:
            yield answers
        finally:
            is_over.set()
        for one in running:
            one.result()


def reload(service: Service, words: str) -> None:
    """Have the keys read again and wait for what the log says of it."""
    assert service.process is not None
    before = service.log().count(words)
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: service.log().count(words) > before, 5, words)


@pytest.fixture
def key_file(folder: Path) -> Path:
    file = folder / "keys"
    file.write_text(secrets.token_urlsafe(48) + "\n")
    return file


def test_keys_change_without_a_restart_and_without_a_lost_call(
    make_service: Callable[..., Service], key_file: Path
) -> None:
    service = make_service(token_keys_file=key_file, requests_per_min=0, creations_per_min=0)
    desk = service.pids("front desk")
    old, new = key_file.read_text(), secrets.token_urlsafe(48) + "\n"
    first = service.client()
    first.sql("SELECT 1")
    with callers(service) as answers:
        key_file.write_text(old + new)
        reload(service, "2 token keys are in use")
        assert first.sql("SELECT 1").status == 200
        second = service.client()
        second.sql("SELECT 1")
    assert {answer.status for answer in answers} == {200}
    key_file.write_text(new)
    reload(service, "1 token keys are in use")
    assert first.sql("SELECT 1").status == 404, "its key is gone"
    assert second.sql("SELECT 1").status == 200, "it was signed with the newer key"
    assert service.pids("front desk") == desk


@pytest.mark.parametrize("content", ["", "short\n", None])
def test_keys_that_cannot_be_read_leave_those_in_use(
    make_service: Callable[..., Service], key_file: Path, content: str | None
) -> None:
    service = make_service(token_keys_file=key_file)
    client = service.client()
    client.sql("SELECT 1")
    if content is None:
        key_file.unlink()
    else:
        key_file.write_text(content)
    reload(service, "the token keys stay as they are")
    assert client.sql("SELECT 1").status == 200
    assert service.client().sql("SELECT 1").status == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_front_desks_are_replaced_one_by_one_and_no_call_is_lost(
    make_service: Callable[..., Service], workers: int
) -> None:
    service = make_service(workers=workers, requests_per_min=0, creations_per_min=0)
    with callers(service) as answers:
        for turn in range(1, 3):
            before = wait_until(
                lambda: len(found := service.pids("front desk")) == workers and found
            )
            assert service.process is not None
            service.process.send_signal(signal.SIGUSR2)
            wait_until(
                lambda turn=turn: service.log().count(" was replaced") == turn * workers,
                30,
                "all are new",
            )
            after = service.pids("front desk")
            assert len(after) == workers
            assert not set(before) & set(after)
            count = len(answers)
            wait_until(lambda count=count: len(answers) > count + 20, 10, "calls go on")
    assert {answer.status for answer in answers} == {200}


def test_a_front_desk_that_would_not_start_replaces_nobody(
    make_service: Callable[..., Service], key_file: Path
) -> None:
    service = make_service(token_keys_file=key_file)
    client = service.client()
    client.sql("SELECT 1")
    desk = service.pids("front desk")
    key_file.unlink()
    assert service.process is not None
    service.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: "is not replaced" in service.log(), 30, "it says so")
    assert service.pids("front desk") == desk
    assert client.sql("SELECT 1").status == 200


def test_the_zygote_is_started_again_and_databases_stay(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    client = service.client()
    client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
    zygote = service.signal("zygote", signal.SIGTERM)
    wait_until(lambda: not is_running(zygote), 10, "it is gone")
    assert client.sql("SELECT x FROM kept").rows == [[1]]
