"""A throw-away InspIRCd with Atheme's services on loopback: a server that has accounts and SASL."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

from peers.ca import PrivateCA
from peers.process import Process, free_port
from peers.require import require_irc_services
from peers.waiting import until

_SERVER = """<config format="xml">
<server name="irc.s.example" description="a test" id="00A" network="test">
<admin name="a" nick="a" email="a@s.example">
<bind address="127.0.0.1" port="{port}" type="clients">
<bind address="127.0.0.1" port="{links}" type="servers">
{tls}<connect name="main" allow="*" timeout="20" resolvehostnames="no" localmax="100" globalmax="100">
<module name="cap">
<module name="sasl">
<module name="services_account">
<module name="spanningtree">
<sasl target="services.s.example" requiressl="no">
<link name="services.s.example" ipaddr="127.0.0.1" port="{links}" allowmask="127.0.0.1"
      sendpass="secret" recvpass="secret">
<uline server="services.s.example" silent="yes">
<dns server="127.0.0.1" timeout="1">
<pid file="{folder}/inspircd.pid">
"""
_TLS = """<module name="ssl_gnutls">
<sslprofile name="people" provider="gnutls" certfile="{chain}" keyfile="{key}">
<bind address="127.0.0.1" port="{port}" type="clients" sslprofile="people">
"""
_SERVICES = """
loadmodule "modules/protocol/inspircd";
loadmodule "modules/backend/opensex";
loadmodule "modules/crypto/pbkdf2v2";
loadmodule "modules/nickserv/main";
loadmodule "modules/nickserv/register";
loadmodule "modules/saslserv/main";
loadmodule "modules/saslserv/plain";
serverinfo {{
  name = "services.s.example"; desc = "services"; numeric = "00B"; recontime = 1; netname = "test";
  hidehostsuffix = "users.test"; adminname = "a"; adminemail = "a@s.example";
  registeremail = "noreply@s.example"; mta = "/bin/true"; loglevel = {{ error; info; }};
  maxlogins = 5; maxusers = 0; mdlimit = 30; emaillimit = 10; emailtime = 300; auth = none;
  casemapping = rfc1459;
}};
uplink "irc.s.example" {{
  host = "127.0.0.1"; send_password = "secret"; receive_password = "secret"; port = {links};
}};
nickserv {{ nick = "NickServ"; user = "NickServ"; host = "services.s.example"; real = "Nicks"; }};
saslserv {{ nick = "SaslServ"; user = "SaslServ"; host = "services.s.example"; real = "SASL"; }};
"""


class IrcServices:
    """One server with its services. ``port`` is for clients, without TLS, and ``tls_port`` with it, where a
    ``ca`` gives it a certificate.
    """

    def __init__(self, folder: Path, ca: PrivateCA | None = None) -> None:
        folder.mkdir(parents=True)
        (folder / "data").mkdir()
        self._folder = folder
        self.port, self.tls_port, self._links = free_port(), free_port(), free_port()
        self.ca = ca
        self._processes: list[Process] = []

    async def start(self) -> Self:
        server, services = require_irc_services()
        folder = self._folder
        conf, atheme = folder / "inspircd.conf", folder / "atheme.conf"
        conf.write_text(_SERVER.format(port=self.port, links=self._links, folder=folder, tls=self._tls()))
        atheme.write_text(_SERVICES.format(links=self._links))
        self._processes.append(
            Process([server, "--nofork", "--runasroot", f"--config={conf}", "--nolog"], folder)
        )
        await until("InspIRCd listens", self._listens)
        self._processes.append(
            Process(
                [services, "-n", "-c", atheme, "-D", folder / "data", "-p", folder / "atheme.pid"], folder
            )
        )
        return self

    def _tls(self) -> str:
        if self.ca is None:
            return ""
        chain, key = self.ca.issue("irc-services", "127.0.0.1")
        return _TLS.format(port=self.tls_port, chain=chain, key=key)

    async def stop(self) -> None:
        for process in reversed(self._processes):
            await asyncio.to_thread(process.stop)

    async def register(self, account: str, password: str) -> None:
        """A person registers an account, as soon as the services are there."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"NICK {account}\r\nUSER {account} 0 * :{account}\r\n".encode())
            while True:
                line = (await reader.readline()).decode()
                if not line:
                    raise RuntimeError(f"the server has closed the connection of {account}")
                if line.startswith("PING"):
                    writer.write(line.replace("PING", "PONG", 1).encode())
                if " is now registered " in line:
                    return
                if " 422 " in line or " 376 " in line:
                    writer.write(f"PRIVMSG NickServ :REGISTER {password} a@s.example\r\n".encode())
                elif " 401 " in line:
                    await asyncio.sleep(0.2)
                    writer.write(f"PRIVMSG NickServ :REGISTER {password} a@s.example\r\n".encode())
        finally:
            writer.close()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True
