"""Addresses: how they are written, who can reach them, and Unix sockets that nobody loses."""

import fcntl
import os
import socket
import stat
import threading

import pytest
from edgekit_runtime import addresses as module
from edgekit_runtime.addresses import (
    Address,
    bind_unix,
    is_loopback,
    parse_address,
    require_token,
    resolve,
    unix_address,
)
from edgekit_runtime.errors import EdgeKitError


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("127.0.0.1:8001", Address("127.0.0.1", 8001)),
        ("[::1]:80", Address("::1", 80)),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80)),
        ("localhost:0", Address("localhost", 0)),
        ("device-7.local:65535", Address("device-7.local", 65535)),
        ("0.0.0.0:8000", Address("0.0.0.0", 8000)),
    ],
)
def test_an_address_reads_and_is_written_as_it_was(text, want):
    assert parse_address(text) == want
    assert str(want) == text


def test_a_unix_path_reads(tmp_path):
    found = parse_address(f"unix:{tmp_path}/a b.sock")
    assert found.path == tmp_path / "a b.sock"
    assert str(found) == f"unix:{tmp_path}/a b.sock"


@pytest.mark.parametrize(
    "text",
    [
        *("", "8001", ":8001", "localhost", "localhost:", "localhost:x", "localhost:-1", "localhost:65536"),
        *("localhost:123456", "::1:80", "[::1]", "[::1]x:80", "[127.0.0.1]:80", "[zz]:80", "a b:80", "a/b:80"),
        *("http://localhost:80", "localhost:80 ", "localhost:80\n", "localhost:\u0661", "unix:", "unix:/"),
        *("unix:@hidden", "unix:a\0b", "unix:/" + "a" * 107),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_say(text):
    with pytest.raises(EdgeKitError) as error:
        parse_address(text)
    assert error.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "127.1", "::1", "::ffff:127.0.0.1", "localhost"])
def test_this_machine_alone_reaches_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "",
        "::",
        "192.168.1.4",
        "128.0.0.1",
        "::2",
        "fe80::1",
        "::ffff:10.0.0.1",
        "::7f00:1",
        "no-such.invalid",
    ],
)
def test_others_reach_the_rest(host):
    assert not is_loopback(host)


def test_a_name_that_also_means_another_machine_is_not_loopback(monkeypatch):
    places = [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)), (socket.AF_INET, 1, 6, "", ("10.0.0.1", 0))]
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *args, **more: places)
    assert not is_loopback("two-faced")
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *args, **more: places[:1])
    assert is_loopback("two-faced")


def test_a_name_is_bound_by_its_numbers():
    found = resolve(Address("localhost", 80))
    assert found
    assert {one.host for one in found} <= {"127.0.0.1", "::1"}
    assert {one.port for one in found} == {80}
    assert resolve(Address("::1", 80)) == (Address("::1", 80),)
    with pytest.raises(EdgeKitError, match="no host"):
        resolve(Address("no-such.invalid", 80))
    with pytest.raises(EdgeKitError, match="no host"):
        resolve(Address("a" * 300 + ".x", 80))


def test_beyond_loopback_a_token_is_asked_for(tmp_path):
    near = [Address("127.0.0.1", 1), Address("::1", 1), unix_address(tmp_path / "s")]
    require_token(near, None)
    for far in (Address("0.0.0.0", 8000), Address("::", 1), Address("192.0.2.1", 1)):
        with pytest.raises(EdgeKitError, match="other machines") as error:
            require_token([*near, far], None)
        assert "token new" in error.value.hint
        require_token([*near, far], object())
    with pytest.raises(EdgeKitError, match="no host"):
        require_token([Address("no-such.invalid", 1)], None)


def test_a_unix_socket_answers_and_is_for_its_group_alone(tmp_path):
    path = tmp_path / "s"
    old = os.umask(0)
    try:
        with bind_unix(path) as bound, socket.socket(socket.AF_UNIX) as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            client.connect(str(path))
            client.sendall(b"hello")
            bound.setblocking(True)
            assert bound.accept()[0].recv(5) == b"hello"
            assert not bound.get_inheritable()
    finally:
        os.umask(old)


def test_a_dead_servers_socket_is_replaced(tmp_path):
    bind_unix(tmp_path / "s").close()
    assert (tmp_path / "s").is_socket()
    with bind_unix(tmp_path / "s"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))


def test_a_living_servers_socket_is_left_alone(tmp_path):
    path = tmp_path / "s"
    with bind_unix(path), socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(EdgeKitError, match="another server listens"):
            bind_unix(path)
        client.connect(str(path))


def test_a_living_server_with_a_full_backlog_is_left_alone(tmp_path):
    path = tmp_path / "s"
    with bind_unix(path) as bound:
        bound.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(str(path))
        with pytest.raises(EdgeKitError, match="another server listens"):
            bind_unix(path)
        for one in waiting:
            one.close()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_not_a_socket_is_never_removed(tmp_path, kind):
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        bind_unix(tmp_path / "dead").close()
        path.symlink_to(tmp_path / "dead")
    with pytest.raises(EdgeKitError, match="not a socket"):
        bind_unix(path)
    assert os.path.lexists(path)


def test_a_folder_that_is_not_there_is_told_in_words(tmp_path):
    with pytest.raises(EdgeKitError, match="No such file or directory"):
        bind_unix(tmp_path / "none" / "s")


def test_of_many_that_start_at_once_one_gets_the_socket(tmp_path):
    bind_unix(tmp_path / "s").close()
    won, lost = [], []

    def start():
        try:
            won.append(bind_unix(tmp_path / "s"))
        except EdgeKitError as error:
            lost.append(error)

    started = [threading.Thread(target=start) for _ in range(8)]
    for one in started:
        one.start()
    for one in started:
        one.join()
    assert (len(won), len(lost)) == (1, 7)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    won[0].close()


def test_who_starts_waits_while_another_one_binds_there(tmp_path):
    """Between bind() and listen() a new socket looks like a dead one: nobody may look meanwhile."""
    folder = os.open(tmp_path, os.O_RDONLY)
    bound = []
    thread = threading.Thread(target=lambda: bound.append(bind_unix(tmp_path / "s")))
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert not (tmp_path / "s").exists()
    finally:
        os.close(folder)
        thread.join(10)
    bound[0].close()
