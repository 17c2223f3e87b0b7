"""What was typed after `edgekit flash`, as values; and what is refused before a device is asked anything."""

from pathlib import Path
from typing import Any

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.flash.bundles import Terms
from edgekit.flash.typed import NOT_AT_REST, Typed, order, served_with, terms, wishes

SSH, CARD, STICK = "ssh://pi@kitchen", "image:card.img", "file:///media/stick"


def typed(where: str, **words: Any) -> Typed:
    return Typed(Path("b"), where, **words)


def test_the_same_terms_go_to_a_device_by_ssh_and_at_rest(tmp_path: Path) -> None:
    (tmp_path / "leave").write_bytes(b"signed")
    words = {"probation": 7.0, "again": True, "roll_back_on_drift": True, "downgrade": tmp_path / "leave"}
    wanted = Terms(7.0, True, True, b"signed")
    assert order(typed(SSH, **words)).terms == wishes(typed(CARD, **words)).terms == wanted
    told = wanted.words("leave.json")
    assert told == ["--probation", "7", "--again", "--roll-back-on-drift", "--downgrade", "leave.json"]


def test_a_comparison_is_told_in_the_devices_own_words() -> None:
    found = terms(typed(SSH, shadow=0.1, shadow_requests=20, shadow_seconds=60.0, agreement=0.9, slower=2.0))
    words = "--shadow 0.1 --shadow-requests 20 --shadow-seconds 60 --agreement 0.9 --slower 2"
    assert found.shadow == tuple(words.split())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"agreement": 0.9}, "--agreement says nothing without --shadow"),
        ({"shadow": 0.1, "downgrade": Path("/dev/null")}, "do not go together"),
        ({"probation": float("nan")}, "--probation nan is no number"),
        ({"shadow": 0.1, "slower": float("inf")}, "--slower inf is no number"),
        ({"downgrade": Path("/dev/zero")}, "too large for a signed leave"),
        ({"downgrade": Path("/nowhere")}, "does not read"),
        ({"serve": "--prot 80"}, "unrecognized arguments: --prot"),
        ({"serve": "--host 0.0.0.0"}, "no token is asked for"),
        ({"serve": "--batch-delay 5"}, "--batch-delay without --batch"),
        ({"serve": '"--port'}, "does not read"),
        ({"serve": "another.edgekit"}, "that is what was flashed"),
        ({"serve": "--device /x"}, "that is what was flashed"),
    ],
)
def test_what_no_device_would_take_is_refused_here(words: dict[str, Any], why: str) -> None:
    for where, made in ((SSH, order), (CARD, wishes)):
        with pytest.raises(EdgeKitError, match=why) as told:
            made(typed(where, **words))
        assert told.value.hint


def test_words_for_a_server_may_name_what_the_device_alone_knows() -> None:
    assert served_with("--host kitchen.lan --tokens '/etc/my tokens'") == (
        *("--host", "kitchen.lan", "--tokens", "/etc/my tokens"),
    )
    assert served_with("") == ()
    assert served_with(None) is None


@pytest.mark.parametrize("name", NOT_AT_REST)
def test_what_says_nothing_to_a_device_at_rest_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(EdgeKitError, match=f"--{name.replace('_', '-')} says nothing to a device at rest: "):
        wishes(typed(CARD, **{name: Path("/x") if name == "ssh_config" else "/x"}))


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (SSH, "partition", 2), (SSH, "in_place", True), (SSH, "python", ("3.11",)),
        (STICK, "partition", 2), (STICK, "in_place", True), (CARD, "python", ("3.11",)),
    ],
)  # fmt: skip
def test_what_is_for_another_place_is_refused(where: str, name: str, value: object) -> None:
    with pytest.raises(EdgeKitError, match="alone"):
        (order if where == SSH else wishes)(typed(where, **{name: value}))


def test_nothing_of_a_bundle_is_kept_where_no_deltas_are_wanted() -> None:
    for where, made in ((SSH, order), (CARD, wishes)):
        assert made(typed(where)).kept is not None
        assert made(typed(where, no_deltas=True)).kept is None
