"""The service's settings: the front desk's own rows, and those of the sandbox below them.

Runs in: front desk, supervisor. One pure `from_environ`; every mistake is found at once.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.settings import PREFIX, Row, SettingsError, User, one_of, read, whole
from sandbox.settings import ROWS as SANDBOX_ROWS

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The shortest key: as many characters as HMAC-SHA256 has bytes of output (RFC 2104, section 3).
MIN_KEY_CHARACTERS = 32
_STORE_SCHEMES = ("redis", "rediss", "redis+unix")
_REDIS_PORT = 6379
_MOST_PORTS = 65_536


class Secret:
    """Text that does not show itself in a traceback, a log or a debugger's list."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret('**********')"

    def reveal(self) -> str:
        """Return the text."""
        return self._value


def _host(text: str) -> str:
    if not text or text != text.strip() or "/" in text:
        raise ValueError("must be a host name or an address")
    return text


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(item.strip()) for item in text.split(",") if item.strip())
    except ValueError as error:
        raise ValueError(f"must be addresses or networks, separated by commas ({error})") from None


def parse_keys(text: str, separator: str) -> tuple[Secret, ...]:
    """Return the keys in a list, oldest to newest. Raises ValueError for one that is too short."""
    keys = [key.strip() for key in text.split(separator)]
    keys = [key for key in keys if key]
    if any(len(key) < MIN_KEY_CHARACTERS for key in keys):
        raise ValueError(f"every key must have at least {MIN_KEY_CHARACTERS} characters")
    if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise ValueError("a key is plain ASCII without spaces, and a list of keys has no comments")
    return tuple(Secret(key) for key in keys)


def _keys(text: str) -> tuple[Secret, ...]:
    return parse_keys(text, ",")


def _file(text: str) -> Path | None:
    return Path(text).absolute() if text else None


def _store(text: str) -> Secret | None:
    if not text:
        return None
    # Valkey speaks Redis' protocol and is reached by the same client.
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower().replace("valkey", "redis")
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        port = parts.port
    except ValueError:  # whose text would show the password
        parts, port = None, None
    if parts is None or scheme not in _STORE_SCHEMES or not (parts.hostname or parts.path):
        raise ValueError("must be a redis://, rediss://, redis+unix:// or valkey:// address")
    if parts.hostname and port is None:
        rest = rest.replace(parts.netloc, f"{parts.netloc.rstrip(':')}:{_REDIS_PORT}", 1)
    return Secret(f"{scheme}://{rest}")


FRONT_ROWS = (
    Row("host", "127.0.0.1", _host, "address to listen on"),
    Row("port", "8080", whole(0, 65_535), "port to listen on; 0 takes any free one and prints it"),
    Row("workers", "1", whole(1, 64), "front desk processes sharing one zygote"),
    Row("ttl_s", "600", whole(1, 86_400), "lifetime of a database"),
    Row("query_timeout_ms", "2000", whole(10, 60_000), "wall clock of one call"),
    Row("requests_per_min", "60", whole(0, 1_000_000), "calls per client address; 0 = no limit"),
    Row(
        "creations_per_min",
        "10",
        whole(0, 1_000_000),
        "new databases per client address; 0 = no limit",
    ),
    Row(
        "forks_per_min",
        "64",
        whole(0, 1_000_000),
        "copies of databases per client address; 0 = no limit",
    ),
    Row(
        "rate_limit_store",
        "",
        _store,
        "shared count of several workers or nodes: `redis://…` (Redis or Valkey)",
        secret=True,
    ),
    Row("trusted_proxies", "", _networks, "addresses whose `X-Forwarded-For` is believed"),
    Row("token_keys", "", _keys, "keys that sign tokens, oldest to newest, by commas", secret=True),
    Row("token_keys_file", "", _file, "file with those keys, one a line"),
    Row(
        "max_connections",
        "16384",
        whole(16, 1_000_000),
        "connections to one front desk; the longest idle one makes room for the next",
    ),
    Row("log_calls", "yes", one_of("yes", "no"), "a line in the log for each call"),
    Row("metrics_host", "127.0.0.1", _host, "address of `GET /metrics`"),
    Row(
        "metrics_port",
        "0",
        whole(0, 65_535),
        "port of `GET /metrics` for Prometheus; each further worker has the next one; 0 = none",
    ),
    Row("drain_s", "10", whole(1, 600), "time that calls in flight get when the service stops"),
)
ROWS = FRONT_ROWS + SANDBOX_ROWS


@dataclass(frozen=True)
class Settings:
    """Everything a front desk and the supervisor need to know."""

    host: str
    port: int
    workers: int
    ttl_s: int
    query_timeout_ms: int
    requests_per_min: int
    creations_per_min: int
    forks_per_min: int
    rate_limit_store: Secret | None
    trusted_proxies: tuple[Network, ...]
    token_keys: tuple[Secret, ...]
    token_keys_file: Path | None
    max_connections: int
    log_calls: str
    metrics_host: str
    metrics_port: int
    drain_s: int
    data_dir: Path
    cell_user: User
    front_user: User | None
    reaper_user: User | None
    max_live_cells: int
    blank_cells: int
    cell_idle_s: int
    max_life_s: int
    log_format: str


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Return the settings. Raises SettingsError with all mistakes at once."""
    try:
        settings = Settings(**read(ROWS, environ))
    except SettingsError as error:
        raise SettingsError(error.mistakes + _contradictions(environ)) from None
    mistakes = _contradictions(environ)
    limited = settings.requests_per_min or settings.creations_per_min or settings.forks_per_min
    if settings.workers > 1 and limited and settings.rate_limit_store is None:
        mistakes.append(
            f"{PREFIX}WORKERS={settings.workers}: several workers need {PREFIX}RATE_LIMIT_STORE to"
            " count a client's requests together, or all limits set to 0"
        )
    metrics = range(settings.metrics_port, settings.metrics_port + settings.workers)
    if settings.metrics_port and (settings.port in metrics or metrics.stop > _MOST_PORTS):
        mistakes.append(
            f"{PREFIX}METRICS_PORT={settings.metrics_port}: from there on each worker needs a port"
            f" of its own, and none may be {PREFIX}PORT"
        )
    if mistakes:
        raise SettingsError(mistakes)
    return settings


def _contradictions(environ: Mapping[str, str]) -> list[str]:
    """Return what can be said of the variables together, whatever their values."""
    both = [PREFIX + "TOKEN_KEYS", PREFIX + "TOKEN_KEYS_FILE"]
    if all(environ.get(name) for name in both):
        return [f"{' and '.join(both)}: set one of them, not both"]
    return []


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings of ours and are none: likely misspelt."""
    known = {row.variable for row in ROWS}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
