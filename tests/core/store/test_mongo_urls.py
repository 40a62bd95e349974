"""``HANSA_TEST_MONGO`` may name any deployment: the URLs that tests make of it keep its user, hosts and options."""

from __future__ import annotations

import pytest
from peers.mongo import database_url, through_url, url_with


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("mongodb://h", "mongodb://h/t"),
        ("mongodb://h:1/", "mongodb://h:1/t"),
        ("mongodb://h:1,g:2/?replicaSet=rs0", "mongodb://h:1,g:2/t?replicaSet=rs0"),
        ("mongodb://h:1?tls=true", "mongodb://h:1/t?tls=true"),
        ("mongodb://a:b%40@h", "mongodb://a:b%40@h/t?authSource=admin"),
        ("mongodb://a:b@h/people?tls=true", "mongodb://a:b@h/t?tls=true&authSource=people"),
        ("mongodb://a:b@h/?authsource=other", "mongodb://a:b@h/t?authsource=other"),
        ("mongodb+srv://a:b@h", "mongodb+srv://a:b@h/t?authSource=admin"),
    ],
)
def test_a_database_of_a_deployment_has_its_user_hosts_and_options(server, url):
    assert database_url(server, "t") == url


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("mongodb://h/t", "mongodb://h/t?connectTimeoutMS=5"),
        ("mongodb://h", "mongodb://h/?connectTimeoutMS=5"),
        ("mongodb://h/t?tls=true&connecttimeoutms=9", "mongodb://h/t?tls=true&connectTimeoutMS=5"),
        ("mongodb://a:b@h/t?tlsCAFile=%2Fa%20b", "mongodb://a:b@h/t?tlsCAFile=%2Fa%20b&connectTimeoutMS=5"),
    ],
)
def test_options_are_added_to_those_that_are_there(url, more):
    assert url_with(url, connectTimeoutMS="5") == more


@pytest.mark.parametrize(
    ("url", "through"),
    [
        ("mongodb://h:1,g:2/t", "mongodb://127.0.0.1:7/t?directConnection=true"),
        ("mongodb://a:b@h/t?authSource=x", "mongodb://a:b@127.0.0.1:7/t?authSource=x&directConnection=true"),
        (
            "mongodb://h/t?tls=true",
            "mongodb://127.0.0.1:7/t?tls=true&directConnection=true&tlsAllowInvalidHostnames=true",
        ),
    ],
)
def test_a_way_through_a_port_is_not_left_for_a_member_of_the_set(url, through):
    assert through_url(url, 7) == through
