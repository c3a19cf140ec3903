"""Read the address of an endpoint, and decide whether the user's API key may be sent there.

models.csv may come from another person. So it can only ask for a key: the user allows each pair of
variable and host, in the environment variable POLLINATION_KEYS or in a file of the home folder.
A key travels over https, or over http to this machine. No heavy imports.
"""

import ipaddress
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

import yaml

from pollination.core.sanitize import line, reason

ALLOWED = "POLLINATION_KEYS"
FILE = "~/.config/pollination/keys.yaml"
PORTS = {"http": 80, "https": 443}
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
ADDRESS = re.compile(
    r"(?i:(?P<scheme>https?)://)(?P<place>[^/?#\\@]*)(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
)
PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")


class Endpoint(NamedTuple):
    """Parsed `base_url`. `host` is in lower case; an IPv6 address has no brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def place(self) -> str:
        """Host and port as a permission names them: the port of https may be absent."""
        return _place(self.host, self.port)

    @property
    def local(self) -> bool:
        """Whether the endpoint is on this machine: localhost, 127.0.0.0/8 or ::1."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def url(self) -> str:
        """The address for chats, from the checked parts only."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}/chat/completions"


def read_endpoint(base_url: str) -> Endpoint:
    """Return the parts of a `base_url`. ValueError: it is not a plain address; says why.

    The message holds no part of an address that may hold a password.
    """
    wanted = "write https://HOST/PATH or http://HOST:PORT/PATH"
    match = ADDRESS.fullmatch(base_url)
    if not match:
        if "@" in base_url:
            said = "it holds a user name or password before '@'; the column `key` names the key"
        elif "?" in base_url or "#" in base_url:
            said = "it holds a query or fragment, which endpoints of this kind do not have"
        else:
            said = f"{line(base_url, 100)!r} is not an address"
        raise ValueError(f"base_url: {said}; {wanted}")
    scheme, path = match["scheme"].lower(), (match["path"] or "").rstrip("/")
    try:
        host, port = _host(match["place"])
    except ValueError as error:
        raise ValueError(f"base_url: {error}; {wanted}") from None
    if path.lower().endswith(("/chat/completions", "/completions")):
        raise ValueError(
            f"base_url: it ends in {path[path.lower().rindex('/c') :]!r}; leave out the part from "
            "/chat/completions on, because the job appends it"
        )
    return Endpoint(scheme, host, PORTS[scheme] if port is None else port, path)


def _host(text: str) -> tuple[str, int | None]:
    match = PLACE.fullmatch(text)
    if not match:
        raise ValueError(
            f"host {line(text, 100)!r} has characters that are not allowed; write an international "
            "name in its ASCII form (xn--...)"
        )
    host = match["host"].lower()
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"port {port} is not allowed; allowed: 1 to 65535")
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), port
        except ValueError:
            raise ValueError(f"host {host!r} is not an IPv6 address") from None
    if not all(host.split(".")):
        raise ValueError(f"host {host!r} has an empty part; remove the dot too many")
    return host, port


def _place(host: str, port: int) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port == PORTS["https"] else f"{host}:{port}"


def allowed_keys() -> set[tuple[str, str]]:
    """Return the pairs (variable, host and port) that the user allows.

    ValueError: POLLINATION_KEYS or the file is malformed, or others may write the file. The message
    repeats no entry, because an entry may hold a key by mistake.
    """
    pairs = set()
    entries = [entry.strip() for entry in os.environ.get(ALLOWED, "").split(",")]
    for number, entry in enumerate(entries, 1):
        if entry:
            variable, _, place = entry.partition("@")
            pairs.add(_pair(variable, place, f"{ALLOWED}, entry {number}"))
    path = _file()
    if path is None:
        return pairs
    try:
        with open(path, encoding="utf-8-sig") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (os.getuid(), 0) or status.st_mode & (
                stat.S_IWGRP | stat.S_IWOTH
            ):
                raise ValueError(
                    f"{path}: other users may write this file, so it allows nothing; type: "
                    f"chmod go-w {path}"
                )
            found = yaml.safe_load(file) or {}
    except FileNotFoundError:
        return pairs
    except OSError as error:
        raise ValueError(f"{path}: {reason(error)}; make the file readable") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ValueError(
            f"{path}: not valid YAML; write lines of the form HOST: VARIABLE"
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not a mapping; write lines of the form HOST: VARIABLE")
    for number, (place, variables) in enumerate(found.items(), 1):
        for variable in variables if isinstance(variables, list) else [variables]:
            pairs.add(_pair(variable, place, f"{path}, entry {number}"))
    return pairs


def _file() -> Path | None:
    try:
        return Path(FILE).expanduser()
    except RuntimeError:  # this user has no home folder
        return None


def _pair(variable: object, place: object, where: str) -> tuple[str, str]:
    form = "HOST: VARIABLE" if where.endswith(".yaml") or ".yaml," in where else "VARIABLE@HOST"
    try:
        if not VARIABLE.fullmatch(str(variable)):
            raise ValueError("the name of a variable has capital letters, digits and _")
        host, port = _host(str(place))
    except ValueError:
        raise ValueError(
            f"{where}: not of the form {form}, where HOST is a host name or HOST:PORT (without "
            "https://) and VARIABLE the name of an environment variable in capital letters"
        ) from None
    return str(variable), _place(host, PORTS["https"] if port is None else port)


def check_key(row: dict) -> Endpoint:
    """Return the endpoint of a row of models.csv. ValueError: its key may not be sent there."""
    endpoint, name = read_endpoint(row["base_url"]), row.get("key")
    if not name:
        return endpoint
    if not VARIABLE.fullmatch(name):
        raise ValueError(
            f"column key of model {row['model']}: not the name of an environment variable (capital "
            "letters, digits and _). If the column holds a key itself, remove it and export it "
            "under such a name"
        )
    if endpoint.scheme != "https" and not endpoint.local:
        raise ValueError(
            f"base_url of model {row['model']}: {name} is not sent over http to {endpoint.place}, "
            "because others can read it on the way. Use https, or leave the column key empty, or "
            f"tunnel the port (ssh -L {endpoint.port}:localhost:{endpoint.port} {endpoint.host}) "
            f"and write http://localhost:{endpoint.port}{endpoint.path}"
        )
    if (name, endpoint.place) not in allowed_keys():
        more = f"${ALLOWED}," if os.environ.get(ALLOWED, "").strip() else ""
        raise ValueError(
            f"column key of model {row['model']}: you have not allowed {name} for the host "
            f"{endpoint.place}. If you trust this host with this key, type: export "
            f'{ALLOWED}="{more}{name}@{endpoint.place}", or add this line to {FILE}: '
            f'"{endpoint.place}": {name}'
        )
    return endpoint


def read_key(row: dict) -> str | None:
    """Return the key that a row of models.csv asks for, after `check_key`; None without one."""
    name = row.get("key")
    if not name:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ValueError(
            f"the environment variable {name} (column key of model {row['model']}) is not set; "
            "export it and run the same command"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError(
            f"the environment variable {name} (column key of model {row['model']}) holds spaces or "
            "characters outside ASCII, so it is not a key; export it again"
        )
    return key
