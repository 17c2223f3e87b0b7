"""TLS: real handshakes with real certificates, and what is wrong with files, in words."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tls import TlsFiles, doubts, http_context, read_pem, renew, tls_files

from tests.runtime import certificates

pytestmark = pytest.mark.slow

if shutil.which("openssl") is None:
    pytest.skip("these tests make certificates with the openssl command", allow_module_level=True)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("strangers"))


def client(ours, mutual=None, **settings):
    context = ssl.create_default_context(cafile=ours.ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if mutual is not None:
        context.load_cert_chain(mutual.client_cert, mutual.client_key)
    for key, value in settings.items():
        setattr(context, key, value)
    return context


def shake(server, client):
    """One connection on loopback: (protocol, TLS version) as the client sees it once the server's bytes came."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        failed = []

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(10)
                try:
                    with server.wrap_socket(connection, server_side=True) as secure:
                        secure.sendall(b"ok")
                except OSError as error:
                    failed.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listening.getsockname(), timeout=10) as plain,
                client.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
            ):
                if secure.recv(2) != b"ok":
                    raise ConnectionError("the server hung up")
                return secure.selected_alpn_protocol(), secure.version()
        finally:
            thread.join()


def test_a_client_that_trusts_the_authority_gets_in_over_the_newest_tls(ours):
    assert shake(http_context(TlsFiles(ours.cert, ours.key)), client(ours)) == ("http/1.1", "TLSv1.3")


def test_tls_1_2_still_works(ours):
    older = client(ours, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert shake(http_context(TlsFiles(ours.cert, ours.key)), older)[1] == "TLSv1.2"


@pytest.mark.filterwarnings("ignore:.*TLSv1_1:DeprecationWarning")
def test_tls_1_1_does_not(ours):
    old = client(ours)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError, match=r"(?i)protocol|alert|closed|reset"):
        shake(http_context(TlsFiles(ours.cert, ours.key)), old)


def test_with_an_authority_for_clients_only_its_clients_get_in(ours, strangers):
    server = http_context(TlsFiles(ours.cert, ours.key, ours.ca))
    assert shake(server, client(ours, mutual=ours))[1] == "TLSv1.3"
    with pytest.raises(OSError, match=r"(?i)certificate required|hung up|reset"):
        shake(server, client(ours))
    with pytest.raises(OSError, match=r"(?i)unknown ca|hung up|reset|decrypt"):
        shake(server, client(ours, mutual=strangers))


def test_a_servers_certificate_does_not_make_a_client(ours):
    context = client(ours)
    context.load_cert_chain(ours.cert, ours.key)
    with pytest.raises(OSError, match=r"(?i)certificate|hung up|reset"):
        shake(http_context(TlsFiles(ours.cert, ours.key, ours.ca)), context)


def test_new_files_are_for_the_next_connection_and_broken_ones_change_nothing(ours, strangers, tmp_path):
    cert, key = tmp_path / "cert", tmp_path / "key"
    shutil.copy(ours.cert, cert)
    shutil.copy(ours.key, key)
    files = TlsFiles(cert, key)
    context = http_context(files)
    shutil.copy(strangers.cert, cert)
    with pytest.raises(EdgeKitError, match="is not the key of"):
        renew(context, files)
    shake(context, client(ours))
    shutil.copy(strangers.key, key)
    renew(context, files)
    shake(context, client(strangers))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, client(ours))


def test_a_key_of_another_certificate_is_refused(ours, strangers):
    for check in (http_context, read_pem):
        with pytest.raises(EdgeKitError, match=r"server.key is not the key of .*server.pem"):
            check(TlsFiles(ours.cert, strangers.key))


def test_the_bytes_for_grpc_are_those_of_the_files(ours):
    pem = read_pem(TlsFiles(ours.cert, ours.key, ours.ca))
    assert (pem.cert, pem.key, pem.client_ca) == tuple(p.read_bytes() for p in (ours.cert, ours.key, ours.ca))


@pytest.mark.parametrize(
    ("which", "mode", "why"),
    [("key", 0o644, "others can read"), ("key", 0o602, "change"), ("cert", 0o666, "change"), ("ca", 0o664, "change")],
)
def test_files_that_are_open_to_others_are_refused(ours, tmp_path, which, mode, why):
    copies = {name: shutil.copy(getattr(ours, name), tmp_path / name) for name in ("cert", "key", "ca")}
    os.chmod(copies[which], mode)
    files = TlsFiles(*(tmp_path / name for name in ("cert", "key", "ca")))
    for check in (http_context, read_pem):
        with pytest.raises(EdgeKitError, match=f"{which}: others can .*{why.split()[-1]}") as error:
            check(files)
        assert error.value.hint.startswith("chmod 6")


def test_a_key_for_its_group_will_do(ours, tmp_path):
    key = tmp_path / "key"
    shutil.copy(ours.key, key)
    key.chmod(0o640)
    http_context(TlsFiles(ours.cert, key))


def test_missing_swapped_and_foreign_files_are_told_in_words(ours, tmp_path):
    with pytest.raises(EdgeKitError, match="no file"):
        http_context(TlsFiles(tmp_path / "none", ours.key))
    with pytest.raises(EdgeKitError, match="does not read"):
        http_context(TlsFiles(tmp_path, ours.key))
    with pytest.raises(EdgeKitError, match="no certificate in PEM form"):
        http_context(TlsFiles(ours.key, ours.key))
    with pytest.raises(EdgeKitError, match="no private key in PEM form"):
        read_pem(TlsFiles(ours.cert, _own(ours, tmp_path)))
    der = tmp_path / "der"
    subprocess.run(["openssl", "x509", "-in", ours.cert, "-outform", "der", "-out", der], check=True)
    with pytest.raises(EdgeKitError, match="no certificate in PEM form"):
        http_context(TlsFiles(der, ours.key))
    cut = tmp_path / "cut"
    cut.write_bytes(ours.cert.read_bytes()[:200])
    with pytest.raises(EdgeKitError, match="cannot be used"):
        http_context(TlsFiles(cut, ours.key))
    with pytest.raises(EdgeKitError, match="do not read"):
        http_context(TlsFiles(ours.cert, ours.key, cut))


def _own(ours, folder):
    """A certificate that only its owner reads."""
    path = folder / "own"
    shutil.copy(ours.cert, path)
    path.chmod(0o600)
    return path


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(ours, tmp_path):
    locked = tmp_path / "locked"
    command = ["openssl", "pkey", "-in", ours.key, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run(command, check=True)
    locked.chmod(0o600)
    with pytest.raises(EdgeKitError, match="wants a password"):
        http_context(TlsFiles(ours.cert, locked))


def test_an_old_a_new_and_an_ending_certificate_are_warned_of(ours):
    pem, now = ours.cert.read_bytes(), time.time()
    assert doubts(pem) == ""
    assert "expired on" in doubts(pem, now + 31 * 86400)
    assert "expires on" in doubts(pem, now + 20 * 86400)
    assert "valid from" in doubts(pem, now - 86400)
    assert "valid from" in doubts(pem, 0.0)


@pytest.mark.parametrize("length", [0, 28, 40, 100, 300])
def test_a_certificate_cut_short_is_doubted_and_breaks_nothing(ours, length):
    assert doubts(ours.cert.read_bytes()[:length]) == "its time of validity does not read"


def test_a_certificate_needs_its_key(tmp_path):
    path = tmp_path / "x"
    assert tls_files(None, None, None) is None
    assert tls_files(path, path, None) == TlsFiles(path, path)
    for given in ((path, None, None), (None, path, None), (None, None, path), (path, None, path)):
        with pytest.raises(EdgeKitError, match="certificate and its key"):
            tls_files(*given)
