"""A throw-away Dendrite on loopback, with SQLite."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Any, Self

import aiohttp

from peers.ca import PrivateCA
from peers.process import Process, free_port
from peers.require import require_dendrite
from peers.signed import Signer
from peers.synapse import MatrixUser, until_answers


class Dendrite:
    """One server. Its name carries its port, as ``Synapse``'s does; ``stop`` and ``start`` keep all it has."""

    #: Everybody has it: Dendrite takes no shorter one.
    password = "pw-of-it"

    def __init__(self, folder: Path, ca: PrivateCA, *, seen_at: int = 0) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.fed_port, self.client_port = free_port(), free_port()
        self.name = f"127.0.0.1:{seen_at or self.fed_port}"
        self.url = f"http://127.0.0.1:{self.client_port}"
        self._ca = ca
        self._chain, self._key = ca.issue(f"dendrite-{self.fed_port}", "127.0.0.1", "localhost")
        self._process: Process | None = None
        self._configure()

    def _configure(self) -> None:
        identifier, seed = f"a_{secrets.token_hex(2)}", secrets.token_bytes(32)
        (self.folder / "signing.key").write_text(
            f"ed25519 {identifier} {base64.b64encode(seed).decode().rstrip('=')}\n"
        )
        pem = base64.b64encode(seed).decode()
        (self.folder / "matrix.pem").write_text(
            "-----BEGIN MATRIX PRIVATE KEY-----\n"
            f"Key-ID: ed25519:{identifier}\n\n{pem}\n"
            "-----END MATRIX PRIVATE KEY-----\n"
        )

        def database(name: str) -> dict[str, Any]:
            return {"connection_string": f"file:{self.folder / name}.db"}

        config: dict[str, Any] = {
            "version": 2,
            "global": {
                "server_name": self.name,
                "private_key": str(self.folder / "matrix.pem"),
                "jetstream": {"storage_path": str(self.folder)},
                "presence": {"enable_inbound": False, "enable_outbound": False},
                "report_stats": {"enabled": False},
            },
            "client_api": {"registration_disabled": False, "rate_limiting": {"enabled": False}},
            "federation_api": {"database": database("federation"), "send_max_retries": 16},
            "room_server": {"database": database("rooms")},
            "key_server": {"database": database("keys")},
            "relay_api": {"database": database("relay")},
            "mscs": {"mscs": [], "database": database("mscs")},
            "media_api": {"database": database("media"), "base_path": str(self.folder / "media")},
            "sync_api": {"database": database("sync")},
            "user_api": {"account_database": database("users"), "bcrypt_cost": 4},
            "logging": [{"type": "std", "level": "info"}],
        }
        (self.folder / "dendrite.yaml").write_text(json.dumps(config))

    async def start(self) -> Self:
        command = [
            require_dendrite(),
            f"-config={self.folder / 'dendrite.yaml'}",
            f"-http-bind-address=127.0.0.1:{self.client_port}",
            f"-https-bind-address=127.0.0.1:{self.fed_port}",
            f"-tls-cert={self._chain}",
            f"-tls-key={self._key}",
            "-really-enable-open-registration",
        ]
        trusts = {"SSL_CERT_FILE": str(self._ca.certificate)}
        self._process = Process(command, self.folder, trusts, foreign=True)
        await until_answers("Dendrite", self.url, self._process, 60)
        return self

    def signer(self) -> Signer:
        """Speaks as this server."""
        return Signer(self.name, self.folder / "signing.key", self._ca.certificate)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    async def user(self, name: str) -> MatrixUser:
        """A new account."""
        body = {"username": name, "password": self.password, "auth": {"type": "m.login.dummy"}}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}/_matrix/client/v3/register", json=body) as answer,
        ):
            got = await answer.json()
            assert answer.status == 200, got
        return MatrixUser(self.url, got["user_id"], got["access_token"])
