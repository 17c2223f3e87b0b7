"""What is served: names, versions and aliases; loading, swapping and unloading while requests run."""

import asyncio
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from edgekit_runtime.bundle import MANIFEST, Bundle, read_manifest
from edgekit_runtime.errors import BadBundle, BadRequest, EdgeKitError, Exceeded, Forbidden, NotFound
from edgekit_runtime.lane import Batching, LaneOptions
from edgekit_runtime.service import Policy, Service, open_service

from tests.runtime.bundles import listed, make_bundle, some, truth
from tests.runtime.live import pair


def same(feeds):
    return {"y": feeds["x"]}


def service(*versions, aliases=None):
    return Service([pair(same, version=version) for version in versions], aliases)


def test_the_newest_version_answers_where_none_is_named():
    one = service("9", "10", "1.2.10")
    assert one.versions("m") == ["1.2.10", "9", "10"]
    assert one.find("m").served.version == "10"
    assert one.find("m", "9").served.version == "9"
    assert one.find("m", "0").served.version == "10"


def test_a_name_or_version_that_is_not_served_is_refused_with_what_is():
    with pytest.raises(NotFound, match="no such model") as raised:
        service("1").find("cat")
    assert raised.value.hint == "this server has m"
    with pytest.raises(NotFound, match="model m has no such version") as raised:
        service("1", "2").find("m", "3")
    assert raised.value.hint == "use one of 1, 2"


def test_an_alias_is_another_name_and_a_label_of_a_version():
    one = service("1", "2", aliases={"prod": ("m", "1"), "now": ("m", None)})
    assert one.find("prod").served.version == "1"
    assert one.find("m", "prod").served.version == "1"
    assert one.find("now").served.version == "2"
    assert one.find("prod", "2").served.version == "2"


def test_an_alias_of_nothing_or_with_a_models_name_is_refused(tmp_path):
    bundle = make_bundle(tmp_path / "b")
    with pytest.raises(NotFound):
        open_service([bundle], {"prod": ("other", None)})
    with pytest.raises(BadRequest, match="is the name of a model"):
        open_service([bundle], {"tiny": ("tiny", "1")})


def test_two_bundles_of_the_same_model_and_version_are_refused(tmp_path):
    with pytest.raises(BadRequest, match="tiny version 1 is given twice"):
        open_service([make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b")])


def test_versions_that_are_no_numbers_are_numbered_by_age():
    one = service("a1", "b2")
    assert [one.number(lane.served) for lane in one.lanes()] == [1, 2]
    assert service("17").number(service("17").find("m").served) == 17


def repository(folder, *versions, peak=None):
    for version in versions:
        bundle = make_bundle(folder / f"tiny-{version}", version=version)
        if peak is not None:
            raw = json.loads((bundle / MANIFEST).read_text())
            raw["evidence"]["peak_mb"] = peak
            (bundle / MANIFEST).write_text(json.dumps(raw))
    return folder


async def answer(service, name="tiny"):
    feeds = {"x": some(2)}
    got = await service.find(name).infer(feeds)
    assert np.allclose(got["y"], truth(some(2)), atol=1e-5)
    return service.find(name).served.version


def test_the_newest_of_each_name_in_the_repository_is_served(tmp_path):
    one = open_service([], None, Policy(repository(tmp_path, "1", "2")))
    assert [(e.version, e.state) for e in one.index()] == [("1", "UNAVAILABLE"), ("2", "READY")]


@pytest.mark.slow
def test_loading_swaps_to_the_newest_and_unloading_ends_it(tmp_path):
    async def story():
        one = open_service([], None, Policy(repository(tmp_path, "1")))
        assert await answer(one) == "1"
        old = one.find("tiny")
        repository(tmp_path, "2")
        await one.load("tiny")
        assert (await answer(one), one.versions("tiny"), old.closing) == ("2", ["2"], True)
        await one.load("tiny")
        await one.unload("tiny")
        assert one.names() == []
        with pytest.raises(NotFound):
            await one.unload("tiny")
        await one.load("tiny")
        assert await answer(one) == "2"
        await one.close()

    asyncio.run(story())


@pytest.mark.slow
def test_no_request_is_lost_while_models_are_swapped(tmp_path):
    async def story(policy, start):
        one = open_service([], None, policy)
        answered, stop = [[] for _ in range(4)], False

        async def client(seen):
            while not stop:
                seen.append(await answer(one))
                await asyncio.sleep(0)

        clients = [asyncio.ensure_future(client(seen)) for seen in answered]
        for version in ("1", "2", "3"):
            if version != "1":
                repository(tmp_path / start, version, peak=60)
                await one.load("tiny")
            async with asyncio.timeout(60):
                while not all(version in seen for seen in answered):
                    await asyncio.sleep(0.01)
        stop = True
        await asyncio.gather(*clients)
        await one.close()
        return answered

    repository(tmp_path / "beside", "1", peak=60)
    repository(tmp_path / "after", "1", peak=60)
    for start, limit in (("beside", None), ("after", 100)):
        for seen in asyncio.run(story(Policy(tmp_path / start, limit), start)):
            assert seen == sorted(seen)
            assert set(seen) == {"1", "2", "3"}


@pytest.mark.slow
def test_a_new_version_that_does_not_open_leaves_the_old_one_serving(tmp_path):
    async def story(limit):
        folder = tmp_path / str(limit)
        one = open_service([], None, Policy(repository(folder, "1", peak=60), limit))
        broken = repository(folder, "2", peak=60) / "tiny-2"
        raw = json.loads((broken / MANIFEST).read_text())
        shutil.copy(broken / "labels.txt", broken / "model.onnx")
        raw["files"]["model.onnx"] = raw["files"]["labels.txt"]
        (broken / MANIFEST).write_text(json.dumps(raw))
        with pytest.raises(EdgeKitError):
            await one.load("tiny")
        assert await answer(one) == "1"
        await one.close()

    asyncio.run(story(None))
    asyncio.run(story(100))


def test_a_model_that_does_not_fit_into_memory_is_refused(tmp_path):
    policy = Policy(repository(tmp_path / "r", "1", peak=60), 100)
    other = make_bundle(tmp_path / "other", name="other")
    with pytest.raises(BadRequest, match="no measured peak memory"):
        open_service([other], None, policy)
    raw = json.loads((other / MANIFEST).read_text())
    raw["evidence"]["peak_mb"] = 60
    (other / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(Exceeded, match="tiny takes 60 MB, more than --max-memory leaves"):
        open_service([other], None, policy)


def test_without_a_repository_nothing_is_loaded_or_unloaded():
    async def story():
        for change in (service("1").load, service("1").unload):
            with pytest.raises(Forbidden):
                await change("m")

    asyncio.run(story())


def test_a_load_of_what_is_not_whole_is_refused_and_the_old_one_serves_on(tmp_path):
    async def story():
        one = open_service([], None, Policy(repository(tmp_path, "1")))
        (repository(tmp_path, "2") / "tiny-2" / "labels.txt").write_text("touched")
        with pytest.raises(BadRequest, match="version 2 of model tiny is not whole"):
            await one.load("tiny")
        assert await answer(one) == "1"
        await one.close()

    asyncio.run(story())


@pytest.mark.slow
def test_other_bytes_of_the_same_version_are_swapped_in(tmp_path):
    async def story():
        one = open_service([], None, Policy(repository(tmp_path, "1")))
        old = one.find("tiny")
        await one.load("tiny")
        assert one.find("tiny") is old
        shutil.rmtree(tmp_path / "tiny-1")
        make_bundle(tmp_path / "again", "tflite", version="1")
        await one.load("tiny")
        assert (one.find("tiny").served.engine, old.closing, one.versions("tiny")) == ("tflite", True, ["1"])
        assert await answer(one) == "1"
        await one.close()

    asyncio.run(story())


def test_aliases_in_a_ring_are_refused(tmp_path):
    with pytest.raises(NotFound):
        open_service([make_bundle(tmp_path / "b")], {"a": ("b", None), "b": ("a", None)})


@pytest.mark.parametrize("name", ["../other", "/etc", "tiny-1", "", "a" * 10_000])
def test_only_bundles_of_the_repository_are_loaded_by_their_own_name(tmp_path, name):
    async def story():
        one = open_service([], None, Policy(repository(tmp_path / "r", "1")))
        make_bundle(tmp_path / "other", name="other")
        with pytest.raises(NotFound) as raised:
            await one.load(name)
        assert str(tmp_path) not in raised.value.what + raised.value.hint
        await one.close()

    asyncio.run(story())


def test_a_bundle_in_the_repository_that_is_not_whole_is_left_out_and_said(tmp_path, caplog):
    folder = repository(tmp_path, "1", "2")
    (folder / "tiny-2" / "labels.txt").write_text("touched")
    one = open_service([], None, Policy(folder))
    assert one.versions("tiny") == ["1"]
    assert "touched after the build" in caplog.text
    with pytest.raises(BadBundle):
        open_service([folder / "tiny-2"])


def test_samples_that_do_not_keep_apart_are_not_batched_whatever_the_server_was_told(caplog):
    mixing = replace(pair(lambda f: {"y": f["x"] - f["x"].mean(axis=0)}), sample={"x": np.ones((1, 2), np.float32)})
    policy = Policy(lane=LaneOptions(batching=Batching(8)))
    assert Service([mixing], None, policy).find("m").options.batching.size == 1
    assert "not batched" in caplog.text
    assert Service([replace(mixing, run=same)], None, policy).find("m").options.batching.size == 8


def test_labels_that_are_no_text_are_told_as_the_bundles_fault(tmp_path):
    folder = make_bundle(tmp_path / "b")
    (folder / "labels.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(BadBundle, match=r"labels\.txt is not text"):
        open_service([listed(folder, read_manifest(folder))])


def test_a_foreign_error_of_an_engine_at_the_start_is_told_plainly_and_logged_whole(tmp_path, monkeypatch, caplog):
    def open_model(self):
        raise RuntimeError("deep inside")

    monkeypatch.setattr(Bundle, "open_model", open_model)
    with pytest.raises(EdgeKitError, match="tiny 1 does not open: RuntimeError"):
        open_service([make_bundle(tmp_path / "b")])
    assert "deep inside" in caplog.text
