"""systemd units: what systemd itself says of them, that they allow what inference needs, and that words stay words."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edgekit_runtime import options, unit
from edgekit_runtime.bundle import MANIFEST
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.hardening import Needs, hardened, path_word
from edgekit_runtime.unit_text import units

from tests.runtime.bundles import make_bundle

pytestmark = pytest.mark.slow

MOST_EXPOSED = {"near": 10, "far": 12, "low": 14, "activated": 3, "device": 11}
"""Tenths of systemd's exposure level (0 safe, 100 unsafe), a tenth above what is reached."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m") / "b"
    make_bundle(folder)
    return measured(folder, peak_mb=100.0)


@pytest.fixture
def tmp_path(tmp_path):
    """Open to the service's user, as a folder of bundles is."""
    tmp_path.chmod(0o755)
    return tmp_path


def measured(folder, **facts):
    path = folder / MANIFEST
    raw = json.loads(path.read_text())
    raw["evidence"] |= facts
    path.write_text(json.dumps(raw))
    return folder


def written(*words, systemd=None):
    """The units for these words, as the command makes them."""
    parser = argparse.ArgumentParser()
    unit.add(parser)
    options.add(parser)
    typed = [str(word) for word in words]
    return units(unit.understood(parser.parse_args(typed), unit.typed(options.add, typed), systemd))


def only(*words, **more):
    made = written(*words, **more)
    assert list(made) == ["edgekit.service"]
    return made["edgekit.service"]


def values(text, key):
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def words_of(text):
    """The ExecStart as systemd would pass it on, credentials left as they are."""
    import shlex

    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(values(text, "ExecStart")[0])]


def analyzed(folder, made, *words):
    for name, text in made.items():
        (folder / name).write_text(text)
    command = ["systemd-analyze", *words, *(str(folder / name) for name in made)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


WAYS = {
    "near": ["--unix", "/run/edgekit/http.sock"],
    "far": ["--host", "0.0.0.0", "--tokens", "TOKENS"],
    "low": ["--port", "443"],
    "activated": ["--socket", "--admin", "unix:/run/edgekit-admin.sock"],
    "device": ["--device", "/var/lib/edgekit"],
}


@needs_systemd
@pytest.mark.parametrize("way", WAYS)
def test_systemd_finds_no_fault_and_little_exposure(bundle, tmp_path, way):
    tokens = tmp_path / "tokens"
    tokens.write_text("camera infer " + "ab" * 32)
    made = written(bundle, *(str(tokens) if word == "TOKENS" else word for word in WAYS[way]))
    checked = analyzed(tmp_path, made, "verify")
    ours = [line for line in checked.stderr.splitlines() if "edgekit" in line]
    assert (checked.returncode, ours) == (0, [])
    service = {"edgekit.service": made["edgekit.service"]}
    rated = analyzed(tmp_path, service, "security", "--offline=yes", f"--threshold={MOST_EXPOSED[way]}", "--no-pager")
    assert rated.returncode == 0, rated.stdout


@needs_systemd
def test_a_users_own_unit_has_no_fault_either(bundle, tmp_path):
    checked = analyzed(tmp_path, written(bundle, "--user"), "--user", "verify")
    assert [line for line in checked.stderr.splitlines() if "edgekit.service" in line] == []
    assert "WantedBy=default.target" in only(bundle, "--user")
    assert "DynamicUser" not in only(bundle, "--user")


@needs_systemd
def test_systemd_would_tell_a_misspelt_line(bundle, tmp_path):
    made = {"edgekit.service": only(bundle).replace("ProtectSystem=strict", "ProtectSistem=strict")}
    assert "ProtectSistem" in analyzed(tmp_path, made, "verify").stderr


def test_the_command_is_the_one_that_was_typed(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    made = only("b", "--name", "edgekit", "--alias", "prod=tiny", "--alias=x=tiny", "--max-body", "0.5", "--refuse-nan")
    start = [sys.executable, "-P", "-m", "edgekit_runtime", "serve"]
    assert words_of(made)[:5] == start
    assert words_of(made)[-1] == str(bundle)
    rest = argparse.ArgumentParser()
    options.add(rest)
    given = rest.parse_args(words_of(made)[5:])
    assert (given.alias, given.max_body, given.refuse_nan) == (["prod=tiny", "x=tiny"], 0.5, True)
    assert "--batch" not in words_of(made)


def test_relative_places_become_whole_ones(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = only(bundle, "--user", "--unix", "http.sock", "--admin", "unix:admin.sock")
    assert f"{tmp_path}/http.sock" in words_of(made)
    assert f"unix:{tmp_path}/admin.sock" in words_of(made)


@needs_systemd
@pytest.mark.parametrize(
    "name", ["my models", "50% of %n", "$HOME ${PATH}", 'a "quoted" one', "it's", "a;b", "; c", "ä:b"]
)
def test_any_name_of_a_folder_stays_one_word(bundle, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(bundle, folder)
    made = written(folder)
    text = made["edgekit.service"]
    assert words_of(text)[-1] == str(folder)
    checked = analyzed(tmp_path, made, "verify")
    assert [line for line in checked.stderr.splitlines() if "edgekit" in line] == []
    exact = path_word(str(folder)).replace("$", "$$")
    assert values(text, "ExecStart")[0].endswith(" " + exact)
    assert [one for one in values(text, "BindReadOnlyPaths") if one == path_word(str(folder))]


@pytest.mark.parametrize("name", ["a\nExecStartPre=/bin/rm -rf /", "a\\", "a\tb", "a\x1b[2J", "a\u2028b"])
def test_a_name_that_would_add_a_line_is_refused(bundle, tmp_path, name):
    shutil.copytree(bundle, tmp_path / "x" / name)
    with pytest.raises(EdgeKitError, match="cannot stand in a systemd unit"):
        written(tmp_path / "x" / name)


def test_the_name_of_the_service_is_a_plain_word(bundle):
    assert list(written(bundle, "--name", "edge-2")) == ["edge-2.service"]
    for name in ("", "a b", "a/b", "a.service", "a\nb", "ä", "a" * 61):
        with pytest.raises(EdgeKitError, match="cannot name a service"):
            written(bundle, "--name", name)


def test_memory_is_what_was_measured_and_room_for_requests(bundle, tmp_path):
    bodies, own = 2 * 256, 64
    assert values(only(bundle), "MemoryMax") == [f"{-(-100_000_000 * 5 // 4 // 2**20) + bodies + own}M"]
    more = measured(make_bundle(tmp_path / "c", name="other"), peak_mb=200)
    assert values(only(bundle, more), "MemoryMax") == [f"{-(-300_000_000 * 5 // 4 // 2**20) + bodies + own}M"]
    assert values(only(bundle, "--max-memory", "700"), "MemoryMax") == ["700M"]
    assert values(only(make_bundle(tmp_path / "d")), "MemoryMax") == ["75%"]
    assert values(only(bundle, "--repository", tmp_path), "MemoryMax") == ["75%"]


def test_a_slow_model_has_a_patient_watchdog(bundle, tmp_path):
    assert values(only(bundle), "WatchdogSec") == ["30"]
    slow = measured(make_bundle(tmp_path / "slow"), cost_ms=20_000.0)
    assert values(only(slow), "WatchdogSec") == ["200"]


def test_openvino_may_make_code_and_the_others_may_not(bundle, tmp_path):
    assert values(only(bundle), "MemoryDenyWriteExecute") == ["yes"]
    compiled = make_bundle(tmp_path / "o", "openvino")
    assert values(only(bundle, compiled), "MemoryDenyWriteExecute") == ["no"]
    assert values(only("--repository", tmp_path), "MemoryDenyWriteExecute") == ["no"]


def test_an_accelerator_gets_its_devices_and_no_others(bundle, tmp_path):
    folder = make_bundle(tmp_path / "g")
    raw = json.loads((folder / MANIFEST).read_text())
    raw["options"]["device"] = "npu"
    (folder / MANIFEST).write_text(json.dumps(raw))
    text = only(folder)
    assert values(text, "PrivateDevices") == []
    assert values(text, "DevicePolicy") == ["closed"]
    assert values(text, "DeviceAllow") == ["char-accel rw", "char-drm rw"]
    assert values(only(bundle), "PrivateDevices") == ["yes"]


def test_an_nvidia_gpu_s_devices_are_named_as_old_and_new_drivers_do_and_what_is_compiled_is_kept(bundle, tmp_path):
    folder = make_bundle(tmp_path / "g")
    raw = json.loads((folder / MANIFEST).read_text())
    for device in ("cuda", "tensorrt"):
        raw["options"]["device"] = device
        (folder / MANIFEST).write_text(json.dumps(raw))
        text = only(folder)
        allowed = set(values(text, "DeviceAllow"))
        assert {"char-nvidia rw", "char-nvidiactl rw", "char-nvidia-frontend rw", "char-nvidia-uvm rw"} <= allowed
        assert "HOME=%S/edgekit" in values(text, "Environment")
        assert values(text, "MemoryDenyWriteExecute") == ["no"]
    assert "HOME=%S/edgekit" not in values(only(bundle), "Environment")


def test_the_network_is_as_near_as_the_address(bundle, tmp_path):
    tokens = tmp_path / "t"
    tokens.write_text("x")
    assert values(only(bundle), "IPAddressDeny") == ["any"]
    assert values(only(bundle), "IPAddressAllow") == ["localhost"]
    far = only(bundle, "--host", "0.0.0.0", "--tokens", tokens)
    assert values(far, "IPAddressDeny") == []
    assert "network-online.target" in far
    assert values(only(bundle, "--admin", "[::]:9000", "--tokens", tokens), "IPAddressDeny") == []
    activated = written(bundle, "--socket")["edgekit.service"]
    assert values(activated, "PrivateNetwork") == ["yes"]
    assert values(activated, "RestrictAddressFamilies") == ["AF_UNIX"]


def test_beyond_loopback_a_unit_wants_tokens_too(bundle):
    for far in (["--host", "0.0.0.0"], ["--admin", "0.0.0.0:9000"]):
        with pytest.raises(EdgeKitError, match="no token is asked for"):
            written(bundle, *far)


def test_a_low_port_brings_the_one_right_that_it_needs(bundle):
    assert values(only(bundle, "--port", "443"), "CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    assert values(only(bundle, "--port", "443"), "PrivateUsers") == []
    assert values(only(bundle), "CapabilityBoundingSet") == [""]
    activated = written(bundle, "--port", "443", "--socket")["edgekit.service"]
    assert values(activated, "CapabilityBoundingSet") == [""]


def test_sockets_lie_below_run_in_a_folder_of_their_own(bundle, tmp_path):
    text = only(bundle, "--unix", "/run/edgekit/http.sock", "--admin", "unix:/run/other/x/a.sock")
    assert values(text, "RuntimeDirectory") == ["edgekit other/x"]
    assert values(only(bundle, "--unix", "/var/lib/edgekit/s"), "RuntimeDirectory") == []
    for path in ("/run/s", "/etc/s", f"{tmp_path}/s", "/run/user/1000/s"):
        with pytest.raises(EdgeKitError, match="may not make a socket") as error:
            written(bundle, "--unix", path)
        assert "/run/edgekit/s" in error.value.hint
        assert f"ListenStream={path}" in written(bundle, "--unix", path, "--socket")["edgekit.socket"]


def test_systemd_opens_the_public_and_the_admins_sockets(bundle):
    made = written(bundle, "--socket", "--port", "8123", "--unix", "/run/s", "--admin", "[::1]:9000")
    assert list(made) == ["edgekit.service", "edgekit.socket", "edgekit-admin.socket"]
    assert values(made["edgekit.socket"], "ListenStream") == ["127.0.0.1:8123", "/run/s"]
    assert values(made["edgekit.socket"], "FileDescriptorName") == ["http"]
    assert values(made["edgekit-admin.socket"], "ListenStream") == ["[::1]:9000"]
    assert values(made["edgekit-admin.socket"], "FileDescriptorName") == ["admin"]
    assert values(made["edgekit.service"], "Requires") == ["edgekit.socket edgekit-admin.socket"]
    with pytest.raises(EdgeKitError, match="port that is not known"):
        written(bundle, "--socket", "--port", "0")


def test_what_only_root_reads_is_passed_as_a_credential(bundle, tmp_path):
    """Files in a home or a temporary folder are hidden from the service as well, whatever their mode."""
    tokens, key = tmp_path / "my tokens", tmp_path / "key"
    for path in (tokens, key):
        path.write_text("x")
        path.chmod(0o600)
    text = only(bundle, "--tokens", tokens, "--tls-cert", "/etc/hostname", "--tls-key", key)
    assert values(text, "LoadCredential") == [f"tokens:{tokens}", f"tls-key:{key}"]
    assert words_of(text)[words_of(text).index("--tokens") + 1] == "${CREDENTIALS_DIRECTORY}/tokens"
    assert words_of(text)[words_of(text).index("--tls-cert") + 1] == "/etc/hostname"
    assert values(only(bundle, "--user", "--tokens", tokens), "LoadCredential") == []
    with pytest.raises(EdgeKitError, match="does not read"):
        written(bundle, "--tokens", tmp_path / "none")


def test_a_bundle_that_the_services_user_cannot_read_is_refused(bundle, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)
    (folder / "labels.txt").chmod(0o600)
    with pytest.raises(EdgeKitError, match=r"labels.txt is closed") as error:
        written(folder)
    assert "chmod -R o+rX" in error.value.hint
    only(folder, "--user")
    (folder / "labels.txt").chmod(0o644)
    folder.chmod(0o750)
    with pytest.raises(EdgeKitError, match=r"b is closed"):
        written(folder)
    with pytest.raises(EdgeKitError, match="no folder"):
        written(tmp_path / "none")


def test_python_and_bundles_in_hidden_places_are_bound_and_nothing_twice(bundle):
    bound = [Path(one) for one in values(only(bundle, bundle), "BindReadOnlyPaths")]
    assert bundle in bound
    assert len(set(bound)) == len(bound)
    assert not any(one != other and one.is_relative_to(other) for one in bound for other in bound)
    if Path(sys.prefix).is_relative_to("/tmp") or Path(sys.prefix).is_relative_to("/home"):
        assert any(Path(sys.prefix).is_relative_to(one) for one in bound)


def test_restarts_wait_longer_and_longer_where_systemd_can(bundle):
    assert values(only(bundle, systemd=254), "RestartSteps") == ["6"]
    assert values(only(bundle, systemd=252), "RestartSteps") == []
    assert values(only(bundle), "Restart") == ["on-failure"]
    assert values(only(bundle), "StartLimitIntervalSec") == ["0"]
    found = unit.installed_systemd()
    assert (found is None) == (shutil.which("systemctl") is None)


def test_units_are_written_to_a_folder_or_not_in_words(bundle, tmp_path):
    made = written(bundle, "--socket")
    unit.write(made, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made
    with pytest.raises(EdgeKitError, match="No such file"):
        unit.write(made, tmp_path / "none")


def test_packages_of_one_user_are_found_by_the_service():
    needs = Needs("x", False, True, False, False, (), (), Path("/home/pi/.local/lib"), frozenset(), False)
    assert "Environment=PYTHONPATH=/home/pi/.local/lib" in hardened(needs)


def test_a_device_is_served_by_a_user_who_stays_the_same(tmp_path):
    text = only("--device", "/var/lib/edgekit")
    assert values(text, "User") == ["edgekit"]
    assert "DynamicUser" not in text
    assert "ReadWritePaths" not in text
    assert words_of(text)[-2:] == ["--device", "/var/lib/edgekit"]
    assert values(only("--device", "/srv/shed"), "ReadWritePaths") == ["/srv/shed"]
    with pytest.raises(EdgeKitError, match="may not write"):
        only("--device", "/home/me/device")
    assert "User=" not in only("--user", "--device", "/home/me/device")
