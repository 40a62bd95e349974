"""A throw-away Synapse on loopback, and a small client for its users."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import secrets
import ssl
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from peers.ca import PrivateCA
from peers.process import Process, free_port
from peers.require import require_synapse
from peers.signed import Signer
from peers.waiting import until

_NO_LIMIT = {"per_second": 1e6, "burst_count": 1_000_000}


async def until_answers(name: str, url: str, process: Process, seconds: float) -> None:
    """Wait until a homeserver answers clients. Raises RuntimeError with what it said if it ends."""
    async with aiohttp.ClientSession() as http:

        async def ready() -> bool:
            if not process.running:
                raise RuntimeError(f"{name} ended:\n{process.tail()}")
            try:
                async with http.get(f"{url}/_matrix/client/versions") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await until(f"{name} answers", ready, seconds)


class Synapse:
    """One server. Its name carries its port, so that nothing is looked up. ``seen_at``: others reach it at
    another port, which is then the one in its name. ``postgres``: the URL of an empty PostgreSQL database that
    it has instead of SQLite. ``presence``: it sends and shows presence.
    """

    def __init__(
        self,
        folder: Path,
        ca: PrivateCA,
        host: str = "127.0.0.1",
        seen_at: int = 0,
        *,
        postgres: str = "",
        presence: bool = False,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.fed_port, self.client_port = free_port(), free_port()
        self.name = f"{host}:{seen_at or self.fed_port}"
        self.url = f"http://127.0.0.1:{self.client_port}"
        self._ca = ca
        self._presence = presence
        self._secret = secrets.token_hex(16)
        self._process: Process | None = None
        self._database: dict[str, Any] = {
            "name": "sqlite3",
            "args": {"database": str(self.folder / "synapse.db")},
        }
        if postgres:
            # It asks for the locale C unless it is told that another will do.
            self._database = {"name": "psycopg2", "allow_unsafe_locale": True, "args": {"dsn": postgres}}
        self._configure()

    def _configure(self) -> None:
        chain, key = self._ca.issue(f"synapse-{self.fed_port}", "127.0.0.1", "localhost")
        seed = secrets.token_bytes(32)
        (self.folder / "signing.key").write_text(
            f"ed25519 a_{secrets.token_hex(2)} {base64.b64encode(seed).decode().rstrip('=')}\n"
        )
        listener = {"bind_addresses": ["127.0.0.1"], "type": "http"}
        config: dict[str, Any] = {
            "server_name": self.name,
            "pid_file": str(self.folder / "synapse.pid"),
            "report_stats": False,
            "listeners": [
                {**listener, "port": self.client_port, "resources": [{"names": ["client"]}]},
                {**listener, "port": self.fed_port, "tls": True, "resources": [{"names": ["federation"]}]},
            ],
            "tls_certificate_path": str(chain),
            "tls_private_key_path": str(key),
            "signing_key_path": str(self.folder / "signing.key"),
            "media_store_path": str(self.folder / "media"),
            "database": self._database,
            "log_config": str(self.folder / "log.yaml"),
            "federation_custom_ca_list": [str(self._ca.certificate)],
            "ip_range_blacklist": [],
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "registration_shared_secret": self._secret,
            "macaroon_secret_key": secrets.token_hex(16),
            "form_secret": secrets.token_hex(16),
            "bcrypt_rounds": 4,
            "presence": {"enabled": self._presence},
            "federation": {
                "client_timeout": "20s",
                "max_short_retries": 1,
                "max_short_retry_delay": 500,
                "max_long_retries": 2,
                "max_long_retry_delay": "1s",
                "destination_min_retry_interval": 500,
                "destination_retry_multiplier": 1,
                "destination_max_retry_interval": "1s",
            },
            "rc_federation": {
                "window_size": 1000,
                "sleep_limit": 1_000_000,
                "sleep_delay": 1,
                "reject_limit": 1_000_000,
                "concurrent": 100,
            },
            "federation_rr_transactions_per_room_per_second": 1000,
        }
        for name in ("rc_message", "rc_registration", "rc_joins_per_room", "rc_room_creation"):
            config[name] = _NO_LIMIT
        config["rc_login"] = {"address": _NO_LIMIT, "account": _NO_LIMIT, "failed_attempts": _NO_LIMIT}
        config["rc_joins"] = {"local": _NO_LIMIT, "remote": _NO_LIMIT}
        config["rc_invites"] = {"per_room": _NO_LIMIT, "per_user": _NO_LIMIT, "per_issuer": _NO_LIMIT}
        log = {
            "version": 1,
            "formatters": {"p": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {
                "f": {
                    "class": "logging.FileHandler",
                    "filename": str(self.folder / "synapse.log"),
                    "formatter": "p",
                }
            },
            "root": {"level": "INFO", "handlers": ["f"]},
            "disable_existing_loggers": False,
        }
        (self.folder / "log.yaml").write_text(json.dumps(log))
        (self.folder / "synapse.yaml").write_text(json.dumps(config))

    async def start(self) -> Self:
        command = [require_synapse(), "-m", "synapse.app.homeserver", "-c", str(self.folder / "synapse.yaml")]
        self._process = Process(command, self.folder, foreign=True)
        await until_answers("Synapse", self.url, self._process, 90)
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signer(self) -> Signer:
        """Speaks as this server."""
        return Signer(self.name, self.folder / "signing.key", self._ca.certificate)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    async def user(self, name: str) -> MatrixUser:
        """A new account."""
        async with aiohttp.ClientSession() as http:
            url = f"{self.url}/_synapse/admin/v1/register"
            async with http.get(url) as answer:
                nonce = (await answer.json())["nonce"]
            mac = hmac.new(self._secret.encode(), digestmod=hashlib.sha1)
            mac.update(b"\0".join([nonce.encode(), name.encode(), b"pw", b"notadmin"]))
            body = {
                "nonce": nonce,
                "username": name,
                "password": "pw",
                "admin": False,
                "mac": mac.hexdigest(),
            }
            async with http.post(url, json=body) as answer:
                got = await answer.json()
                assert answer.status == 200, got
        return MatrixUser(self.url, got["user_id"], got["access_token"])


class Refusal(Exception):
    """An error answer of the client API."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body


class MatrixUser:
    """One logged-in user, of whatever server."""

    def __init__(self, url: str, user_id: str, token: str, ca: Path | None = None) -> None:
        self.url, self.id, self._token = url, user_id, token
        self._tls = ssl.create_default_context(cafile=str(ca)) if ca is not None else True
        self._http: aiohttp.ClientSession | None = None
        self._syncs = 0

    @property
    def token(self) -> str:
        """The access token."""
        return self._token

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {self._token}"},
                connector=aiohttp.TCPConnector(ssl=self._tls),
            )
        async with self._http.request(method, f"{self.url}/_matrix/client/v3{path}", json=body) as answer:
            got = await answer.json()
            if answer.status != 200:
                raise Refusal(answer.status, got)
            return got

    async def upload(self, data: bytes, content_type: str, name: str) -> str:
        """A file for others; its address."""
        await self.call("GET", "/account/whoami")
        assert self._http is not None
        url = f"{self.url}/_matrix/media/v3/upload?filename={quote(name)}"
        async with self._http.post(
            url, data=io.BytesIO(data), headers={"Content-Type": content_type}
        ) as answer:
            got = await answer.json()
            assert answer.status == 200, got
            return str(got["content_uri"])

    async def download(self, mxc: str) -> tuple[dict[str, str], bytes]:
        """A file of any server: headers and bytes."""
        await self.call("GET", "/account/whoami")
        assert self._http is not None
        url = f"{self.url}/_matrix/client/v1/media/download/{mxc.removeprefix('mxc://')}"
        async with self._http.get(url) as answer:
            got = await answer.read()
            if answer.status != 200:
                raise Refusal(answer.status, got)
            return {k.lower(): v for k, v in answer.headers.items()}, got

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def create_room(self, version: str = "12", **options: Any) -> str:
        body = {"preset": "public_chat", "room_version": version, **options}
        return str((await self.call("POST", "/createRoom", body))["room_id"])

    async def join(self, room: str, via: str = "") -> str:
        query = f"?via={quote(via)}&server_name={quote(via)}" if via else ""
        return str((await self.call("POST", f"/join/{quote(room, safe='')}{query}", {}))["room_id"])

    async def leave(self, room: str) -> None:
        await self.call("POST", f"/rooms/{quote(room, safe='')}/leave", {})

    async def invite(self, room: str, user: str) -> None:
        await self.call("POST", f"/rooms/{quote(room, safe='')}/invite", {"user_id": user})

    async def kick(self, room: str, user: str, reason: str = "") -> None:
        await self.call("POST", f"/rooms/{quote(room, safe='')}/kick", {"user_id": user, "reason": reason})

    async def ban(self, room: str, user: str) -> None:
        await self.call("POST", f"/rooms/{quote(room, safe='')}/ban", {"user_id": user})

    async def say(self, room: str, text: str, msgtype: str = "m.text") -> str:
        path = f"/rooms/{quote(room, safe='')}/send/m.room.message/{secrets.token_hex(6)}"
        return str((await self.call("PUT", path, {"msgtype": msgtype, "body": text}))["event_id"])

    async def set_state(self, room: str, kind: str, content: Any, key: str = "") -> None:
        await self.call("PUT", f"/rooms/{quote(room, safe='')}/state/{kind}/{quote(key, safe='')}", content)

    async def state(self, room: str) -> dict[tuple[str, str], Any]:
        events = await self.call("GET", f"/rooms/{quote(room, safe='')}/state")
        return {(e["type"], e["state_key"]): e for e in events}

    async def members(self, room: str) -> dict[str, str | None]:
        """Joined users with their names."""
        got = await self.call("GET", f"/rooms/{quote(room, safe='')}/joined_members")
        return {user: entry.get("display_name") for user, entry in got["joined"].items()}

    async def sync(self, more: str = "") -> dict[str, Any]:
        """A first sync. Synapse answers one from a cache for two minutes, unless it is asked in other words."""
        self._syncs += 1
        found: dict[str, Any] = await self.call("GET", f"/sync?timeout={self._syncs}{more}")
        return found

    async def invites(self) -> set[str]:
        """The rooms that the user is invited to."""
        return set((await self.sync()).get("rooms", {}).get("invite", {}))

    async def history(self, room: str, most: int = 1000) -> list[dict[str, Any]]:
        """The newest events, oldest first."""
        found: list[dict[str, Any]] = []
        start = ""
        while len(found) < most:
            query = f"dir=b&limit=100{'&from=' + quote(start) if start else ''}"
            got = await self.call("GET", f"/rooms/{quote(room, safe='')}/messages?{query}")
            found += got["chunk"]
            start = got.get("end", "")
            if not start or not got["chunk"]:
                break
        return found[::-1]

    async def bodies(self, room: str, sender: str = "") -> list[str]:
        """The texts of the room's messages, oldest first."""
        events = await self.history(room)
        return [
            e["content"].get("body", "")
            for e in events
            if e["type"] == "m.room.message" and sender in e["sender"]
        ]
