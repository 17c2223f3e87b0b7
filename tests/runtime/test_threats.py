"""The server under attack: each threat that concerns it has a test that fails without its guard, listed in `ROWS`.

Refuses a row whose tests are not there. Floods are let loose on a process of its own, and held against `GROWTH` MB of
memory and `PROMPT` seconds (more where the machine has much to do) for an answer to who else asks."""

import ast
import gzip
import json
import logging
import multiprocessing
import socket
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from edgekit_runtime import __main__ as command
from edgekit_runtime.addresses import Address
from edgekit_runtime.bundle import describe, open_bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.lane import LaneOptions
from edgekit_runtime.limits import MIB, Limits
from edgekit_runtime.messages import classes
from edgekit_runtime.preprocess import parse_preprocess
from edgekit_runtime.routes import protocols
from edgekit_runtime.served import Served, opened
from edgekit_runtime.service import Policy, Service
from edgekit_runtime.serving import Guard, Supervisor, Where, serve
from edgekit_runtime.tensors import TensorSpec
from edgekit_runtime.threads import MOST
from edgekit_runtime.tokens import Tokens, add_token
from edgekit_runtime.watching import Watch

from tests.runtime.bundles import make_bundle
from tests.runtime.live import LOCAL, live, pair, post, two
from tests.waiting import here, until

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROWS = {
    1: (  # a body that is too large
        "test_http1.py::test_each_limit_has_its_own_status_and_counter",
        "test_http1.py::test_bodies_of_all_clients_together_are_bounded",
        "test_http1.py::test_expect_continue_is_told_to_go_on_and_a_body_too_large_is_not",
        "test_grpc_refusals.py::test_a_message_beyond_the_limit_is_refused",
        "test_threats.py::test_a_flood_neither_fills_the_memory_nor_keeps_others_waiting",
        "test_threats.py::test_bodies_without_a_length_are_bounded_together_too",
        "test_threats.py::test_messages_of_all_grpc_clients_together_are_bounded",
    ),
    2: (  # very many tiny chunks
        "test_http1.py::test_each_limit_has_its_own_status_and_counter",
        "test_threats.py::test_a_flood_neither_fills_the_memory_nor_keeps_others_waiting",
    ),
    3: (  # what unpacks to very much: gzip, photos, messages
        "test_http1.py::test_each_limit_has_its_own_status_and_counter",
        "test_grpc_refusals.py::test_a_gzip_bomb_is_refused_without_being_unpacked",
        "test_grpc_refusals.py::test_a_message_of_very_many_empty_things_is_refused_and_counted",
        "test_preprocess.py::test_a_decompression_bomb_is_refused",
        "test_preprocess_audio.py::test_a_sound_beyond_memory_is_refused_before_it_is_made",
        "test_tfserving.py::test_small_photos_that_become_very_much_are_refused_before_they_do",
        "test_threats.py::test_a_flood_neither_fills_the_memory_nor_keeps_others_waiting",
        "test_threats.py::test_few_photos_are_decoded_and_few_large_texts_read_at_once",
    ),
    4: (  # deep or wide JSON
        "test_jsons.py::test_json_nested_deeper_than_the_limit_is_refused_without_recursion",
        "test_jsons.py::test_more_values_than_the_limit_are_refused",
        "test_jsons.py::test_more_numbers_than_the_limit_are_refused_before_they_are_made",
        "test_threats.py::test_very_many_keys_are_refused_before_they_are_made",
        "test_threats.py::test_few_photos_are_decoded_and_few_large_texts_read_at_once",
        "test_threats.py::test_a_request_that_lies_is_refused_and_the_server_answers_the_next",
    ),
    5: (  # shapes and lengths that lie
        "test_v2.py::test_strings_whose_lengths_lie_are_refused",
        "test_v2.py::test_a_size_that_is_not_the_tensors_is_refused",
        "test_v2.py::test_a_header_length_outside_the_body_is_refused",
        "test_v2_grpc.py::test_a_message_that_lies_is_refused",
        "test_http1.py::test_a_request_that_two_servers_could_read_differently_is_refused",
        "test_threats.py::test_a_request_that_lies_is_refused_and_the_server_answers_the_next",
        "test_threats.py::test_headers_behind_the_body_change_nothing",
    ),
    6: (  # NaN, Infinity, odd types
        "test_lane.py::test_nan_is_passed_on_unless_the_server_refuses_it",
        "test_v2.py::test_nan_and_infinity_are_read_and_written_as_triton_does",
        "test_threats.py::test_a_request_that_lies_is_refused_and_the_server_answers_the_next",
    ),
    7: (  # slow clients
        "test_http1.py::test_a_head_that_dribbles_is_cut_off_with_408",
        "test_http1.py::test_a_body_that_dribbles_is_cut_off_with_408_whatever_comes_meanwhile",
        "test_http1.py::test_too_many_connections_are_told_to_come_back",
        "test_threats.py::test_a_flood_neither_fills_the_memory_nor_keeps_others_waiting",
        "test_threats.py::test_who_does_not_read_is_let_go_whatever_it_sends",
        "test_threats.py::test_one_address_does_not_take_the_places_of_the_others",
        "test_threats.py::test_callers_who_send_no_message_do_not_keep_the_server_from_others",
        "test_threats.py::test_watchers_do_not_keep_the_server_from_others",
    ),
    8: (  # floods
        "test_lane.py::test_a_full_queue_is_said_at_once_with_when_to_come_back",
        "test_lane.py::test_a_deadline_ends_the_wait_and_what_is_late_is_not_run",
        "test_lane.py::test_what_a_client_gave_up_is_not_run_and_frees_its_place",
        "test_grpc_refusals.py::test_a_full_queue_is_unavailable_and_says_when_to_come_again",
        "test_grpc_refusals.py::test_connections_beyond_the_limit_are_refused",
        "test_grpc_refusals.py::test_calls_beyond_the_limit_are_refused",
        "test_grpc_refusals.py::test_metadata_beyond_the_limit_is_refused",
        "test_threats.py::test_a_flood_neither_fills_the_memory_nor_keeps_others_waiting",
        "test_threats.py::test_very_many_offers_of_other_protocols_are_answered",
    ),
    9: (  # errors that tell internals
        "test_http1.py::test_a_bug_is_logged_whole_and_answered_without_internals",
        "test_grpc_refusals.py::test_a_bug_is_told_to_the_log_and_not_to_the_client",
        "test_threats.py::test_no_error_tells_a_path_or_gives_back_what_was_sent_at_length",
    ),
    10: (  # shared memory
        "test_grpc.py::test_shared_memory_is_told_to_be_off",
        "test_threats.py::test_nothing_that_a_client_names_is_opened_fetched_or_run",
    ),
    11: (  # an admin's routes in public
        "test_service.py::test_without_a_repository_nothing_is_loaded_or_unloaded",
        "test_service.py::test_only_bundles_of_the_repository_are_loaded_by_their_own_name",
        "test_grpc_refusals.py::test_what_is_served_and_set_is_not_changed_by_just_anybody",
        "test_tfserving_grpc.py::test_a_path_in_a_configuration_is_refused_before_anything_is_done",
        "test_threats.py::test_no_route_of_an_admin_is_open_in_public_whatever_the_token",
        "test_threats.py::test_a_web_page_cannot_make_a_browser_ask_as_the_admin",
        "test_threats.py::test_the_admin_loads_nothing_that_comes_in_a_request",
    ),
    12: (  # addresses in requests
        "test_torchserve.py::test_no_model_is_registered_even_where_admins_ask",
        "test_threats.py::test_nothing_that_a_client_names_is_opened_fetched_or_run",
    ),
    13: (  # code in data
        "test_bundle.py::test_recordings_that_are_none_are_refused_and_never_unpickled",
        "test_threats.py::test_nothing_on_the_device_can_unpickle_or_evaluate",
        "test_threats.py::test_nothing_that_a_client_names_is_opened_fetched_or_run",
    ),
    14: ("test_threats.py::test_a_model_that_points_out_of_its_bundle_is_not_served",),
    15: (  # what a bundle may be made of
        "test_bundle.py::test_a_link_in_place_of_a_file_is_refused",
        "test_bundle.py::test_a_linked_manifest_is_refused",
        "test_bundle.py::test_a_pipe_in_place_of_a_file_does_not_hang",
        "test_bundle.py::test_a_path_that_climbs_out_is_refused",
        "test_bundle.py::test_an_unlisted_file_is_refused",
        "test_manifest.py::test_a_file_outside_the_bundle_is_refused",
    ),
    28: (  # tokens: theft, guessing, timing
        "test_tokens.py::test_the_secret_is_256_random_bits_and_only_its_hash_is_kept",
        "test_tokens.py::test_every_token_is_compared_whichever_matches",
        "test_tokens.py::test_a_token_works_once_it_is_in_the_file_and_no_longer_than_that",
        "test_tokens.py::test_a_token_allows_its_scopes_and_no_other",
        "test_tls.py::test_tls_1_1_does_not",
        "test_http1.py::test_tls_of_an_old_version_is_not_spoken",
        "test_threats.py::test_a_token_in_the_address_opens_nothing_and_is_written_nowhere",
    ),
    29: (  # what is counted tells no secrets
        "test_threats.py::test_made_up_names_make_no_new_series",
    ),
    31: (  # the log
        "test_main.py::test_what_a_file_says_cannot_drive_the_terminal",
        "test_threats.py::test_what_a_client_sent_cannot_forge_a_line_of_the_log",
        "test_threats.py::test_no_error_tells_a_path_or_gives_back_what_was_sent_at_length",
    ),
    32: (  # what the service may do to its machine
        "test_unit.py::test_systemd_finds_no_fault_and_little_exposure",
        "test_unit.py::test_a_low_port_brings_the_one_right_that_it_needs",
        "test_addresses.py::test_a_unix_socket_answers_and_is_for_its_group_alone",
        "test_addresses.py::test_beyond_loopback_a_token_is_asked_for",
    ),
}
GROWTH = 128.0
"""MB that one flood may make the server grow by: its buffers (16), what it unpacks (16), and the copies in hand."""
PROMPT = 4.0
FLOODED = Limits(
    body=4 * MIB, buffered=16 * MIB, chunks=4096, header_seconds=1.5, body_seconds=1.5, connections=300,
    per_address=200, values=2_000_000,
)  # fmt: skip
INFER, RPC = "/v2/models/m/infer", "/inference.GRPCInferenceService/ModelInfer"
HEAD = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n".encode()
OTHER = ("127.0.0.9", 0)
"""Another address of this machine: who is not the attacker."""
WORDS = "\x1b[2J\r\nERROR edgekit_runtime.http: forged"


def same(feeds):
    return {"y": feeds["x"]}


def same_late(feeds):
    time.sleep(1)
    return same(feeds)


def words(run, name="words"):
    return Served(name, "1", "onnx", (TensorSpec("x", "object", (None,)),), (TensorSpec("y", "object", (None,)),), run)


def photos():
    spec = TensorSpec("x", "float32", (None, 3, 2, 2))
    wanted = parse_preprocess({"kind": "image", "input": "x", "resize": [2, 2]}, None)
    return Served("photo", "1", "onnx", (spec,), (TensorSpec("y", "float32", (None, 3, 2, 2)),), same, (), wanted)


@dataclass(frozen=True)
class Besieged:
    """A server in a process of its own."""

    pid: int
    address: tuple[str, int]
    grpc: str

    def memory(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def ask(self, data, source=None, seconds=20.0):
        """What comes back until the server closes."""
        with socket.create_connection(self.address, seconds, source) as connection:
            return read_all(connection, data)

    def well(self):
        asked = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        return self.ask(asked, OTHER).startswith(b"HTTP/1.1 200")

    def counted(self, name):
        told = self.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", OTHER).decode()
        return sum(int(line.split()[-1]) for line in told.splitlines() if line.startswith(name))

    @contextmanager
    def held(self, growth=GROWTH):
        """Ask and measure while the body goes on: the server answers in time, stays small, and knows no bug of it."""
        before, peak, slowest, over = self.memory(), 0.0, 0.0, threading.Event()
        failed = []

        def look():
            nonlocal peak, slowest
            while not over.is_set():
                start = time.perf_counter()
                try:
                    assert self.well()
                except (OSError, AssertionError) as error:
                    failed.append(error)
                slowest = max(slowest, time.perf_counter() - start)
                peak = max(peak, self.memory())
                time.sleep(0.02)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert not failed
        assert slowest < here(PROMPT)
        assert peak - before < growth
        assert self.counted('edgekit_http_requests_total{code="500"}') == 0


def read_all(connection, data=b""):
    came = b""
    try:
        connection.sendall(data)
        while block := connection.recv(65536):
            came += block
    except OSError:
        pass
    return came


def _serve(pipe):
    """The besieged process."""
    models = [pair(same), pair(same_late, "slow"), words(same), photos()]
    service = Service(models, None, Policy(limits=FLOODED, lane=LaneOptions(queue=64)))
    where = Where(LOCAL, grpc=Address("127.0.0.1", 0))
    serve(service, where, Guard(), Supervisor(), Watch(), lambda at: pipe.send(dict(at)))


@pytest.fixture(scope="module")
def besieged():
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs,))
    process.start()
    try:
        assert ours.poll(60)
        at = ours.recv()
        host, port = at["http"].split("//")[1].split(":")
        yield Besieged(process.pid, (host, int(port)), at["grpc"])
        assert process.is_alive()
    finally:
        process.terminate()
        process.join(30)
        if process.is_alive():
            process.kill()


def at_once(count, one):
    """Run `one(number)` in so many threads, and give what they gave."""
    found = [None] * count

    def run(number):
        with suppress(OSError):
            found[number] = one(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def statuses(answers):
    return Counter(int(answer.split(b" ")[1]) for answer in answers if answer)


def pour(begin, piece=b"x" * 65536, times=256):
    """A flood of one connection that never comes to its end."""

    def one(besieged, number):
        with socket.create_connection(besieged.address, 20) as connection:
            connection.sendall(begin)
            for _ in range(times):
                connection.sendall(piece)
            return read_all(connection)

    return lambda besieged: at_once(6, lambda number: one(besieged, number))


def hold(begin, count=190):
    """Connections that begin and then say nothing, until the server ends them."""

    def flood(besieged):
        held = [socket.create_connection(besieged.address, 20) for _ in range(count)]
        for connection in held:
            connection.sendall(begin)
        ended = [read_all(connection) for connection in held]
        for connection in held:
            connection.close()
        assert statuses(ended) == {408: count}

    return flood


def send(asked, count, codes):
    """The same request by many at once; each is answered with one of the codes, in time."""

    def flood(besieged):
        found = statuses(at_once(count, lambda number: besieged.ask(asked, seconds=5.0)))
        assert found.keys() <= {*codes, 408}, found  # a busy machine brings some too late
        assert found.keys() & set(codes), "nobody was answered"

    return flood


def unread(besieged):
    """Ask and ask for a large answer, and read none."""
    with socket.create_connection(besieged.address, 1) as connection:
        try:
            for _ in range(4000):
                connection.sendall(b"GET /v2/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        except OSError:  # it stopped to read us, as it should
            time.sleep(1)


def crowd(besieged):
    """More connections than there may be, again and again."""
    for _ in range(3):
        held = []
        for _ in range(600):
            try:
                held.append(socket.create_connection(besieged.address, 5))
            except OSError:
                break
        time.sleep(0.3)
        for connection in held:
            connection.close()


def wide(unit):
    return b'{"inputs":[' + unit * (4 * MIB // len(unit) - 9) + b"1]}"


BOMB = gzip.compress(two() + b" " * (4 * MIB - 500))
HUGE = gzip.compress(bytes(200 * MIB), 1)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW = "/v2/models/slow/infer"
FLOODS = {
    "heads that never end": hold(b"GET / HTTP/1.1\r\nHost"),
    "bodies that never end": hold(HEAD + b"Content-Length: 900\r\n\r\n{"),
    "one header without an end": pour(HEAD + b"A: "),
    "the name of a header without an end": pour(HEAD),
    "one trailer without an end": pour(CHUNKED + b"0\r\nA: "),
    "one chunk extension without an end": pour(CHUNKED + b"1;"),
    "headers without an end": pour(HEAD, b"a: b\r\n" * 10_000, 64),
    "chunks of one byte": pour(CHUNKED, b"1\r\nx\r\n" * 10_000, 64),
    "an address without an end": pour(b"GET /"),
    "large bodies": send(post(INFER, b" " * (4 * MIB - 1)), 40, (400, 503)),
    "bodies that are too large": send(post(INFER, b" " * (8 * MIB)), 20, (413, 503)),
    "bombs": send(post(INFER, BOMB, "Content-Encoding: gzip"), 60, (200, 503)),
    "bombs for a slow model": send(post(SLOW, BOMB, "Content-Encoding: gzip"), 60, (200, 503)),
    "bombs far beyond the limit": send(post(INFER, HUGE, "Content-Encoding: gzip"), 8, (413, 503)),
    "bombs in bombs": send(post(INFER, gzip.compress(wide(b"[],")), "Content-Encoding: gzip"), 30, (400, 413, 503)),
    "wide JSON of lists": send(post(INFER, wide(b"[1],")), 12, (400, 413, 503)),
    "wide JSON of strings": send(post(INFER, wide(b'"ab",')), 12, (400, 413, 503)),
    "wide JSON of numbers and nulls": send(post(INFER, wide(b"1.5,null,")), 12, (400, 413, 503)),
    "answers that are not read": unread,
    "connections": crowd,
    "many requests in one packet": send(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n" * 5000 + post(INFER, two()), 10, (200,)),
    "requests for a slow model": send(post(SLOW, two()), 150, (200, 503)),
}


def test_each_row_names_tests_that_there_are():
    found = {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert set().union(*ROWS.values()) <= found
    assert set(ROWS) == {*range(1, 16), 28, 29, 31, 32}
    ours = {f"{HERE.joinpath('test_threats.py').name}::{name}" for name in globals() if name.startswith("test_")}
    assert ours <= set().union(*ROWS.values(), {"test_threats.py::test_each_row_names_tests_that_there_are"})


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_neither_fills_the_memory_nor_keeps_others_waiting(besieged, flood):
    with besieged.held():
        FLOODS[flood](besieged)
    assert besieged.ask(post(INFER, two())).startswith(b"HTTP/1.1 200")


def test_who_does_not_read_is_let_go_whatever_it_sends(monkeypatch):
    from edgekit_runtime import http1

    monkeypatch.setattr(http1, "WRITE_SECONDS", 1.0)
    with live(Service([pair(same)])) as one, socket.create_connection(one.address, 5) as connection:
        for _ in range(2000):
            connection.sendall(b"GET /v2/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            time.sleep(0.01)
            if any(known._stuck for known in one.server.edges[0].connections):
                break
        assert one.server.edges[0].connections
        until(lambda: not one.server.edges[0].connections)


def test_one_address_does_not_take_the_places_of_the_others():
    with live(Service([pair(same)], None, Policy(limits=Limits(connections=30, per_address=20)))) as one:
        held = [socket.create_connection(one.address, 5) for _ in range(150)]
        try:
            until(lambda: one.counted("edgekit_refused_total", "connections_per_address") == 130)
            with socket.create_connection(one.address, 5, OTHER) as connection:
                assert read_all(connection, post(INFER, two())).startswith(b"HTTP/1.1 200")
        finally:
            for connection in held:
                connection.close()


def test_bodies_without_a_length_are_bounded_together_too():
    piece = b"%x\r\n%s\r\n" % (90_000, b" " * 90_000)
    with live(Service([pair(same)], None, Policy(limits=Limits(body=100_000, buffered=250_000)))) as one:
        held = [socket.create_connection(one.address, 5) for _ in range(3)]
        for connection in held:
            connection.sendall(CHUNKED + piece)
        assert statuses([read_all(held[2], b"")]) == {503: 1}
        for connection in held:
            connection.close()


def test_very_many_offers_of_other_protocols_are_answered():
    offer = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with live(Service([pair(same)])) as one:
        assert statuses(one.raw(offer * 3000 + post(INFER, two())).split(b"HTTP/1.1")[1:]) == {200: 3001}


def test_headers_behind_the_body_change_nothing():
    body = two()
    asked = CHUNKED.replace(b"Host: x", b"Host: x\r\nConnection: close")
    asked += b"%x\r\n%s\r\n0\r\nContent-Encoding: br\r\nInference-Header-Content-Length: 3\r\n\r\n" % (len(body), body)
    with live(Service([pair(same)])) as one:
        assert one.raw(asked).startswith(b"HTTP/1.1 200")


def test_few_photos_are_decoded_and_few_large_texts_read_at_once(monkeypatch):
    from edgekit_runtime.routes import v2

    now, most, lock = 0, 0, threading.Lock()

    def heavy(give):
        def run(*given):
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.05)
            with lock:
                now -= 1
            return give(*given)

        return run

    monkeypatch.setattr(v2, "apply", heavy(lambda *given: {"x": np.zeros((1, 3, 2, 2), np.float32)}))
    monkeypatch.setattr(v2.v2, "read_request", heavy(v2.v2.read_request))
    with live(Service([photos(), pair(same)])) as one:
        large = post(INFER, two() + b" " * MIB)
        for asked in (post("/v2/models/photo/infer", b"x", "Content-Type: image/png"), large):
            assert statuses(at_once(12, lambda number, asked=asked: one.raw(asked))) == {200: 12}
    assert most == MOST <= 4


def test_very_many_keys_are_refused_before_they_are_made(besieged):
    body = b"{" + b",".join(b'"%x":1' % number for number in range(300_000)) + b"}"
    assert len(body) < FLOODED.body
    answer = besieged.ask(post(INFER, body))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"values" in answer


# gRPC


def message(name="m", rows=1):
    made = classes("inference")["inference.ModelInferRequest"](model_name=name, raw_input_contents=[bytes(8 * rows)])
    made.inputs.add(name="x", datatype="FP32", shape=[rows, 2])
    return made.SerializeToString()


@contextmanager
def channels(besieged, count=3):
    own = [("grpc.use_local_subchannel_pool", 1)]
    made = [grpc.insecure_channel(besieged.grpc, own) for _ in range(count)]
    try:
        yield made
    finally:
        for channel in made:
            channel.close()


def served_by_grpc(besieged):
    with channels(besieged, 1) as (channel,):
        return bool(channel.unary_unary(RPC)(message(), timeout=5))


def test_watchers_do_not_keep_the_server_from_others(besieged):
    with besieged.held(), channels(besieged) as made:
        watch = [one.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20) for one in made for _ in range(120)]
        time.sleep(1)
        assert served_by_grpc(besieged)
        for call in watch:
            call.cancel()


@pytest.mark.slow
def test_callers_who_send_no_message_do_not_keep_the_server_from_others(besieged):
    over = threading.Event()

    def never():
        over.wait(20)
        return
        yield

    with besieged.held(), channels(besieged) as made:
        calls = [one.stream_unary(RPC).future(never(), timeout=20) for one in made for _ in range(120)]
        time.sleep(FLOODED.body_seconds + 1.5)
        assert served_by_grpc(besieged)
        over.set()
        assert {call.code() for call in calls} <= {
            grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED,
        }  # fmt: skip


@pytest.mark.slow
def test_messages_of_all_grpc_clients_together_are_bounded(besieged):
    large = message("slow", rows=400_000)
    with besieged.held(300), channels(besieged) as made:  # gRPC itself holds what is on its way
        calls = [one.unary_unary(RPC).future(large, timeout=8) for one in made for _ in range(15)]
        codes = Counter(call.code() for call in calls)
    assert codes[grpc.StatusCode.UNAVAILABLE] > 30
    assert served_by_grpc(besieged)


# requests that lie

X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


def said(**changes):
    return json.dumps({"inputs": [X | changes]}).encode()


def text(old, new):
    return said().replace(old, new)


def form(count):
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\nx\r\n' % number for number in range(count)
    )
    return parts + b"--b--\r\n"


def binary(shape, rest, size, name="x", datatype="BYTES"):
    head = {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    front = json.dumps({"inputs": [head]}).encode()
    return front + rest, [f"Inference-Header-Content-Length: {len(front)}"]


STRINGS, FORM = "/v2/models/words/infer", ["Content-Type: multipart/form-data; boundary=b"]
LIES = {
    "deep lists": (INFER, b"[" * 100_000, []),
    "deep objects": (INFER, b'{"a":' * 100_000, []),
    "deep data": (INFER, text(b"[1, 2]", b"[" * 60 + b"1" + b"]" * 60), []),
    "an integer of very many digits": (INFER, text(b"[1, 2]", b"[" + b"9" * 100_000 + b", 2]"), []),
    "a size of very many digits": (INFER, text(b'"shape": [1, 2]', b'"shape": [' + b"9" * 5000 + b", 2]"), []),
    "the same key twice": (INFER, text(b'"name"', b'"name": "y", "name"'), []),
    "half a character": (INFER, text(b'"x"', b'"\\ud800"'), []),
    "no UTF-8": (INFER, b"\xff\xfe" + said(), []),
    "NaN as a size": (INFER, text(b'"shape": [1, 2]', b'"shape": [NaN, 2]'), []),
    "a negative size": (INFER, said(shape=[-1, 2]), []),
    "two negative sizes": (INFER, said(shape=[-1, -2]), []),
    "a product beyond 64 bits": (INFER, said(shape=[2**62, 2**62]), []),
    "a product that wraps to what fits": (INFER, said(shape=[2**63 + 1, 2]), []),
    "very many axes": (INFER, said(shape=[1] * 10_000), []),
    "a truth for a size": (INFER, said(shape=[True, 2]), []),
    "a name of a megabyte": (INFER, said(name="x" * MIB), []),
    "a region of shared memory": (INFER, said(parameters={"shared_memory_region": "r"}), []),
    "a string longer than its tensor": (STRINGS, *binary([1], struct.pack("<I", 2**32 - 1) + b"ab", 6)),
    "more strings than bytes": (STRINGS, *binary([2**30], struct.pack("<I", 0), 4)),
    "bytes behind the last string": (STRINGS, *binary([1], struct.pack("<I", 0) + b"abcd", 8)),
    "a size beyond the body": (STRINGS, *binary([1], b"", 2**40)),
    "a negative size of bytes": (STRINGS, *binary([1], b"", -1)),
    "very many parts": ("/predictions/m", form(5000), FORM),
    "a part without an end": ("/predictions/m", b"--b\r\n" + b"x" * MIB, FORM),
    "a boundary of nothing": ("/predictions/m", form(1), ["Content-Type: multipart/form-data; boundary="]),
    "a photo of nothing": ("/v2/models/photo/infer", b"\x89PNG\r\n\x1a\n" + bytes(100), ["Content-Type: image/png"]),
    "bits that unpack to no JSON": (INFER, gzip.compress(b"[" * MIB), ["Content-Encoding: gzip"]),
    "what is packed twice": (INFER, gzip.compress(gzip.compress(said())), ["Content-Encoding: gzip"]),
    "a packing that is not whole": (INFER, gzip.compress(said())[:-4], ["Content-Encoding: gzip"]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_request_that_lies_is_refused_and_the_server_answers_the_next(besieged, lie):
    path, body, headers = LIES[lie]
    start = time.perf_counter()
    answer = besieged.ask(post(path, body, *headers))
    assert statuses([answer]).keys() <= {400, 413}, answer[:200]
    assert time.perf_counter() - start < here(PROMPT)
    assert besieged.ask(post(INFER, two())).startswith(b"HTTP/1.1 200")


# what is told, counted and written


@pytest.mark.parametrize("path", ["/" + "%1b%5b2J" * 900, "/v2/models/%0a%0dx/infer", "/v2/models/" + "x" * 7000,
                                  "/v2/models/..%2f..%2fetc%2fpasswd/config", "/v1/models/%1b%5b2J",
                                  "/predictions/%1b%5b2J%0a", "/v2/repository/models/%2e%2e%2fx/load"])  # fmt: skip
def test_no_error_tells_a_path_or_gives_back_what_was_sent_at_length(path):
    with live(Service([pair(same)])) as one:
        for verb in ("GET", "POST", "PUT", "DELETE"):
            head = f"{verb} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            front, body = one.raw(head.encode()).split(b"\r\n\r\n", 1)
            assert statuses([front]).keys() <= {400, 403, 404, 405}
            assert b"application/json" in front
            assert b"\x1b" not in front + body
            assert len(body) < 8192 + 400
            assert all(place not in body for place in (b".py", str(HERE).encode(), b"Traceback"))


def test_made_up_names_make_no_new_series():
    with live(Service([pair(same)])) as one:

        def series():
            one.ask("/v2/models/none")
            one.ask("/v2", verb="DELETE")
            one.ask(INFER, two())
            told = one.ask("/metrics")[1].decode()
            return {line.rsplit(" ", 1)[0] for line in told.splitlines()}

        before = series()
        for number in range(200):
            one.ask(f"/v2/models/secret{number}/versions/{number}/infer", two())
            one.ask(f"/secret{number}?token=secret{number}", verb=["GET", "PUT", "PATCH"][number % 3])
            one.ask(INFER, two(), X_Secret=f"secret{number}", User_Agent=f"secret{number}")
        assert series() == before
        assert "secret" not in str(before)
        assert not any("secret" in str(key) for key in one.server.counters.counts)


def test_what_a_client_sent_cannot_forge_a_line_of_the_log(capfd):
    def run(feeds):
        raise ValueError(feeds["x"][0])

    logger = logging.getLogger("edgekit_runtime")
    before, propagate = list(logger.handlers), logger.propagate
    try:
        command._log("text")
        with live(Service([words(run)])) as one:
            body = {"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [WORDS]}]}
            assert one.ask(STRINGS, json.dumps(body).encode())[0] == 500
        logger.warning("%s", WORDS)
    finally:
        logger.handlers, logger.propagate = before, propagate
    written = capfd.readouterr().err
    assert "forged" in written
    assert not any(line.startswith("ERROR edgekit_runtime.http: forged") for line in written.splitlines())
    assert r"\r\nERROR edgekit_runtime.http: forged" in written
    assert "\x1b" not in written
    assert "\r" not in written


# who may ask what


@pytest.fixture
def guarded(tmp_path):
    path = tmp_path / "tokens"
    found = {scope: add_token(path, scope, [scope]) for scope in ("infer", "metrics", "admin")}
    return Guard(Tokens(path)), found


CHANGES = [route for route in protocols() if route.verb not in ("GET", "HEAD") and route.read is None]


def example(route):
    """A path that the route takes."""
    for path in ("/v2/repository/index", "/v2/repository/models/m/load", "/v2/repository/models/m/unload",
                 "/v2/trace/setting", "/v2/logging", "/models", "/models/m", "/models/m/1/set-default"):  # fmt: skip
        if route.path.fullmatch(path):
            return path
    return None


def test_no_route_of_an_admin_is_open_in_public_whatever_the_token(guarded):
    guard, tokens = guarded
    admin = [(route, example(route)) for route in protocols() if route.scope == "admin"]
    assert len(admin) >= 9
    with live(Service([pair(same)]), guard=guard) as one:
        for route, path in admin:
            assert path, f"{route.path.pattern} wants an example"
            for token in ("", "wrong", *tokens.values()):
                got, _, _ = one.ask(path, b"", route.verb, **({"Authorization": f"Bearer {token}"} if token else {}))
                assert got == 403, (route.verb, path)
        named = [route.path.pattern for route in CHANGES if route.scope != "admin"]
        harmless = ("generate", "sharedmemory", "explain", "explanations")
        assert all(any(word in pattern for word in harmless) for pattern in named), named


def test_a_web_page_cannot_make_a_browser_ask_as_the_admin(tmp_path):
    make_bundle(tmp_path / "b")
    service = Service([opened(open_bundle(tmp_path / "b"))], None, Policy(repository=tmp_path))
    with live(service, Where(LOCAL, admin=LOCAL)) as one:
        host, port = one.at["admin"].split("//")[1].split(":")
        for more, code in ((["Origin: http://evil.example", "Content-Type: text/plain"], 403), ([], 200)):
            with socket.create_connection((host, int(port)), 10) as connection:
                asked = post("/v2/repository/models/tiny/unload", b"", *more)
                assert statuses([read_all(connection, asked)]) == {code: 1}
            assert one.server.service.names() == ([] if code == 200 else ["tiny"])


@pytest.mark.parametrize("parameters", [{"config": "{}"}, {"file:1/model.onnx": "eA=="}, {"file:../../x": "eA=="}])
def test_the_admin_loads_nothing_that_comes_in_a_request(tmp_path, parameters):
    make_bundle(tmp_path / "b")
    with live(Service([], None, Policy(repository=tmp_path)), Where(LOCAL, admin=LOCAL)) as one:
        host, port = one.at["admin"].split("//")[1].split(":")
        body = json.dumps({"parameters": parameters}).encode()
        with socket.create_connection((host, int(port)), 10) as connection:
            assert statuses([read_all(connection, post("/v2/repository/models/tiny/load", body))]) == {403: 1}
        assert one.server.service.names() == []


def test_a_token_in_the_address_opens_nothing_and_is_written_nowhere(guarded, caplog):
    guard, tokens = guarded
    caplog.set_level(logging.DEBUG)
    with live(Service([pair(same)]), guard=guard) as one:
        token = tokens["infer"]
        for query in (f"token={token}", f"access_token={token}", f"authorization=Bearer%20{token}"):
            got, body, _ = one.ask(f"/v2/models?{query}")
            assert got == 401
            assert token.encode() not in body
        assert one.ask("/v2/models", Cookie=f"token={token}")[0] == 401
        assert one.ask("/v2/models", Authorization=f"Bearer {token}")[0] == 200
        assert one.ask("/v2/models", Authorization=f"Bearer {tokens['admin']}")[0] == 403
    assert token not in caplog.text


# nothing that a client names is touched

NAMED = "canary-of-test-threats"
WATCHED: list[str] = []


def _audit(event, given):
    if event in ("open", "socket.connect", "socket.getaddrinfo", "pickle.find_class", "subprocess.Popen", "os.system"):
        said = f"{event} {given}"
        if NAMED in said or event in ("pickle.find_class", "subprocess.Popen", "os.system"):
            WATCHED.append(said)


def test_nothing_that_a_client_names_is_opened_fetched_or_run(tmp_path):
    if not WATCHED:
        sys.addaudithook(_audit)
    (tmp_path / NAMED).write_text("secret of ours")
    WATCHED.clear()
    names = [f"http://{NAMED}.invalid/x", f"file://{tmp_path}/{NAMED}", f"{tmp_path}/{NAMED}", f"../{NAMED}",
             f"cos\nsystem\n(S'{NAMED}'\ntR."]  # fmt: skip
    with live(Service([words(same), pair(same), photos()], None, Policy(repository=tmp_path))) as one:
        for name in names:
            data = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [name]}
            region = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"shared_memory_region": name}}
            for path, value in (
                (STRINGS, {"inputs": [data]}),
                (STRINGS, {"inputs": [region]}),
                ("/v1/models/photo:predict", {"instances": [{"url": name}]}),
                ("/v1/models/photo:predict", {"instances": [{"b64": name}]}),
                ("/predictions/photo", {"url": name}),
                ("/predictions/photo", {"data": name}),
                (f"/models?url={NAMED}", {}),
                ("/v2/systemsharedmemory/region/r/register", {"key": name, "offset": 0, "byte_size": 8}),
                ("/v2/cudasharedmemory/region/r/register", {"raw_handle": {"b64": name}}),
                ("/v2/trace/setting", {"trace_file": name}),
                ("/v2/logging", {"log_file": name}),
            ):
                for kind in ("application/json", "application/vnd.bentoml+pickle"):
                    got, body, _ = one.ask(path, json.dumps(value).encode(), Content_Type=kind)
                    assert got < 500 or got == 501
                    assert b"secret of ours" not in body
    assert WATCHED == []
    with pytest.raises(FileNotFoundError):  # the watch itself works
        (tmp_path / "none" / NAMED).read_text()
    assert len(WATCHED) == 1


FORBIDDEN = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml", "torch", "code"}


def test_nothing_on_the_device_can_unpickle_or_evaluate():
    import edgekit_runtime

    found = []
    for path in Path(edgekit_runtime.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module.split(".")[0]]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                names = ["pickle"] if called in ("eval", "exec", "compile", "__import__") else []
                safe = any(key.arg == "allow_pickle" and ast.unparse(key.value) == "False" for key in node.keywords)
                names += ["pickle"] if called == "np.load" and not safe else []
            found += [f"{path.name}: {name}" for name in names if name in FORBIDDEN]
    assert found == []


# bundles


def external(folder, location):
    """The model of a bundle, whose weights are to come from `location`."""
    import onnx
    from edgekit_runtime.bundle import MANIFEST
    from onnx.external_data_helper import set_external_data

    make_bundle(folder)
    path = folder / "model.onnx"
    model = onnx.load(path)
    weights = next(one for one in model.graph.initializer if one.name == "w")
    size = len(weights.raw_data)
    set_external_data(weights, location, 0, size)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    raw = json.loads((folder / MANIFEST).read_text())
    entry = describe(path)
    raw["files"]["model.onnx"] = {"sha256": entry.sha256, "size": entry.size}
    (folder / MANIFEST).write_text(json.dumps(raw))
    return size


@pytest.mark.parametrize("where", ["absolute", "../secret.bin", "sub/../../secret.bin", "*/_ORT_MEM_ADDR_/*", "none"])
def test_a_model_that_points_out_of_its_bundle_is_not_served(tmp_path, where):
    secret = tmp_path / "secret.bin"
    size = external(tmp_path / "b", str(secret) if where == "absolute" else where)
    secret.write_bytes(bytes(size + 64))
    with pytest.raises(EdgeKitError) as caught:
        opened(open_bundle(tmp_path / "b"))
    assert "Traceback" not in caught.value.what
