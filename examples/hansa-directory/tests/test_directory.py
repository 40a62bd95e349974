"""The directory keeps the contract of policies, and says what its service says."""

from __future__ import annotations

import json

import hansa_directory
import pytest
from hansa import HttpError, HttpResponse
from hansa.testing import Actor, PolicySetup, PolicySuite, ScriptedHttp, run_hansa
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module


class TestContract(PolicySuite):
    plugin = hansa_directory


@pytest.mark.parametrize(
    ("status", "said"), [(200, True), (401, False), (403, False), (500, None), (302, None), (None, None)]
)
async def test_what_the_service_says_counts(status, said):
    answer = HttpResponse(status=status) if status else HttpError("nobody is there")
    service = ScriptedHttp({"POST login.example.org/check": answer})
    options = hansa_directory.Config(url="https://login.example.org/check?x=1")
    policy = PolicySetup(name="directory", module=hansa_directory, options=options)
    networks = {"left": (module(dict[str, Actor]()), ActorConfig())}
    async with run_hansa(networks, policies=[policy], http=service) as app:
        assert await app.contexts["left"].check_password("@ann:example.org", "in fair verona") is said
    (request,) = service.requests
    assert (request.host, request.target, request.tls_name) == (
        "login.example.org",
        "/check?x=1",
        "login.example.org",
    )
    assert json.loads(request.body) == {"user": "@ann:example.org", "password": "in fair verona"}
