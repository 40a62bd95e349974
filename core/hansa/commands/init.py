"""``hansa init``: a folder with a commented configuration, keys, and a certificate to try things with."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
import secrets
from pathlib import Path

from hansa.pure.errors import ConfigError

_TOML = """\
# Hansa. Every key that is not here has its default; `hansa check -c {file}` names every mistake.

[server]
listen = ["https://{host}:8448"]     # one port for federation; http:// is for behind a proxy
tls = {{ certificate = "tls/fullchain.pem", key = "tls/key.pem" }}
admin = "unix:hansa.sock"            # what the command line talks to; only this user may
# metrics = "127.0.0.1:9100"         # /health and /metrics
# ca_file = "tls/ca.pem"             # more authorities to trust when calling other servers
# private_networks = ["10.0.0.0/8"]  # other servers may be here although it is private

[store]
url = "sqlite:hansa.db"

[networks.matrix]                    # the table's name is the network's id
plugin = "matrix"
server_name = "{name}"               # follows the colon in user ids; can never be changed
signing_key = "matrix.key"
# room_version = "12"

# [networks.xmpp]                    # a component of your XMPP server (XEP-0114)
# plugin = "xmpp"
# component = "bridge.{name}"
# host = "127.0.0.1"
# port = 5347
# secret = {{ file = "component.secret" }}

# [policies.lists]
# plugin = "governance"
# mode = "shadow"                    # only say what would be stopped; "enforce" stops it
# on_error = "deny"                  # what counts when the policy cannot answer
# deny_servers = ["*.evil.example"]
# words = ["classified"]
# rate = {{ events = 20, seconds = 10 }}

# [[rooms]]                          # kept by this file
# links = ["matrix:#lobby", "xmpp:lobby"]
"""

_NEXT = """\
{folder} is ready for {name}.

For other servers to find you, {name} needs one of these:
  DNS:  {name}.  IN A  <your address>          and port 8448 open, or
  DNS:  _matrix-fed._tcp.{name}.  IN SRV  10 5 8448 <host>.   or
  web:  https://{name}/.well-known/matrix/server  ->  {{"m.server": "<host>:443"}}
The certificate in tls/ is for trying things out; no other server trusts it. Put a real one for
{name} (in every case above) in its place:
  tls/fullchain.pem   the certificate and its chain
  tls/key.pem         its key, mode 0600
For XMPP, your XMPP server needs a component (Prosody):
  Component "bridge.{name}"
    component_secret = "<the secret>"

Next: hansa check -c {folder}/hansa.toml && hansa run -c {folder}/hansa.toml
"""


def write_secret(path: Path, text: str) -> None:
    """A new file that only its owner may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
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
    folder.mkdir()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(folder / "key.pem", pem.decode())
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def init(folder: Path, name: str) -> str:
    """Make everything; what to do next, as text. Raises ConfigError if anything is there already."""
    host = name.partition(":")[0]
    file = folder / "hansa.toml"
    for path in (file, folder / "matrix.key", folder / "tls"):
        if path.exists():
            raise ConfigError(f"{path} exists already: nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    write_secret(folder / "matrix.key", f"ed25519 a_{secrets.token_hex(3)} {seed}\n")
    _development_certificate(folder / "tls", host)
    listen = "127.0.0.1" if host in {"localhost", "127.0.0.1"} else "0.0.0.0"  # noqa: S104  # it is a server
    file.write_text(_TOML.format(file=file, host=listen, name=name), encoding="utf-8")
    return _NEXT.format(folder=folder, name=name)
