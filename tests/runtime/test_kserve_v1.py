"""KServe V1: what its client reads of the models, and that it gets no explanations."""

from edgekit_runtime.errors import NotOffered
from edgekit_runtime.protocols.kserve_v1 import explain, models, readiness


def test_the_models_are_listed_by_name():
    assert models(("a", "b")) == {"models": ["a", "b"]}


def test_a_model_says_whether_it_is_ready():
    assert readiness("a", True) == {"name": "a", "ready": True}
    assert readiness("a", False)["ready"] is False


def test_explanations_are_not_offered_and_the_hint_says_what_is():
    refusal = explain()
    assert isinstance(refusal, NotOffered)
    assert ":predict" in refusal.hint
