"""``hansa init``: a folder with a commented configuration, keys, and a certificate to try things with."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
import re
import secrets
from pathlib import Path

from hansa.model.errors import ConfigError

_NAME = re.compile(r"([A-Za-z0-9.-]{1,230}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")

_TOML = """\
# Hansa. Keys that are not in this file have their defaults. `hansa check -c FILE` reports every mistake.

[server]
# One port for federation. Use an http:// address only behind a proxy that terminates TLS.
listen = ["https://{listen}:{port}"]
tls = {{ certificate = "tls/fullchain.pem", key = "tls/key.pem" }}
# The socket of the command line; only the user who runs Hansa can use it.
admin = "unix:hansa.sock"
# Where /health and /metrics (Prometheus) are served.
# metrics = "127.0.0.1:9100"
# Additional certificate authorities for connections to other servers.
# ca_file = "tls/ca.pem"
# Private networks in which other servers may be.
# private_networks = ["10.0.0.0/8"]

[store]
# sqlite:FILE, postgres://HOST/DATABASE, or mongodb://HOST/DATABASE (a replica set, one node is enough)
url = "sqlite:hansa.db"

# The name of the table is the network's id.
[networks.matrix]
plugin = "matrix"
# The part after the colon in user IDs; it can never be changed.
server_name = "{name}"
signing_key = "matrix.key"
# room_version = "12"
# Administrator of the rooms that Hansa creates.
# operator = "@you:{name}"

# A component (XEP-0114) of your XMPP server.
# [networks.xmpp]
# plugin = "xmpp"
# component = "bridge.{host}"
# host = "127.0.0.1"
# port = 5347
# secret = {{ file = "component.secret" }}

# The servers and users that may talk to each other, and the content that may cross. Shadow mode only logs.
# [policies.house]
# plugin = "governance"
# mode = "shadow"
# on_error = "deny"
# deny_servers = ["*.evil.example"]
# deny_users = ["@mallory:*"]
# words = ["classified"]
# rate = {{ events = 20, seconds = 10 }}

# Rooms whose links this file defines.
# [[rooms]]
# links = ["matrix:#lobby", "xmpp:lobby"]
# name = "Lobby"
# published = true
"""

_NEXT = """\
{folder} is ready for {name}.

{found}
The certificate in tls/ is for tests: other servers do not trust it. Replace it by one that is issued for
{host}:
  tls/fullchain.pem   the certificate, then its chain
  tls/key.pem         its key, mode 0600

For XMPP, give your server a component. In Prosody, with the secret also in component.secret (mode 0600):
  Component "bridge.{host}"
    component_secret = "<the secret>"

Next: hansa check -c {folder}/hansa.toml && hansa run -c {folder}/hansa.toml
"""

_BY_PORT = """\
Other servers find {name} at port {port}. DNS needs:
  {host}.  IN A  <your address>
"""

_BY_ADDRESS = """\
Other servers find {name} at port {port}; no DNS is needed.
"""

_BY_NAME = """\
For other servers to find you, {host} needs one of these:
  DNS:  {host}.  IN A  <your address>                      with port 8448 open, or
  DNS:  _matrix-fed._tcp.{host}.  IN SRV  10 5 8448 <server>.   or
  web:  https://{host}/.well-known/matrix/server  with  {{"m.server": "<server>:8448"}}
        (the certificate is then that of <server>)
"""


def render_config(name: str) -> str:
    """Returns the commented configuration of a server of that name, which listens at the port of the name."""
    host, port = split_name(name)
    local = host in {"localhost", "127.0.0.1"}
    listen = "127.0.0.1" if local else "0.0.0.0"  # noqa: S104  # it is a server
    return _TOML.format(name=name, host=host, port=port or 8448, listen=listen)


def split_name(name: str) -> tuple[str, int]:
    """``(host, port)`` of a server name; 0 where it has no port."""
    host, colon, port = name.rpartition(":")
    if colon and port.isdigit() and not host.endswith(":") and (":" not in host or host.startswith("[")):
        return host.strip("[]"), int(port)
    return name.strip("[]"), 0


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def write_secret(path: Path, text: str) -> None:
    """A new file that only its owner may read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)


def _development_certificate(folder: Path, name: str) -> None:
    from cryptography import x509  # noqa: PLC0415  # heavy, and only here
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    try:
        other: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        other = x509.DNSName(name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([other, x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(mode=0o700)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(folder / "key.pem", pem.decode())
    write_secret(folder / "fullchain.pem", certificate.public_bytes(serialization.Encoding.PEM).decode())


def init(folder: Path, name: str) -> str:
    """Creates the folder; returns the instructions. Raises ConfigError if anything is there already."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a server name: use example.org or example.org:8448")
    file = folder / "hansa.toml"
    for path in (file, folder / "matrix.key", folder / "tls"):
        if path.exists():
            raise ConfigError(f"{path} exists already: nothing was written")
    before = os.umask(0o077)  # for folders above, too
    try:
        return _make_files(folder, name)
    finally:
        os.umask(before)


def _make_files(folder: Path, name: str) -> str:
    host, port = split_name(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    write_secret(folder / "matrix.key", f"ed25519 a_{secrets.token_hex(3)} {seed}\n")
    _development_certificate(folder / "tls", host)
    write_secret(folder / "hansa.toml", render_config(name))  # secrets may be written into it
    found = (_BY_ADDRESS if _is_address(host) else _BY_PORT if port else _BY_NAME).format(
        name=name, host=host, port=port or 8448
    )
    return _NEXT.format(folder=folder, name=name, host=host, found=found)
