"""Names, digests and run ids. The vectors stand in docs/wire.md: a change here breaks other languages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetflow.engine.identity import (
    check_name,
    child_id,
    child_ids,
    input_digest,
    is_name,
    is_run_id,
    keyed_root_id,
)
from jetflow.errors import InvalidDeclaration, InvalidInput, InvalidName
from jetflow.wire.codec import ANY

ROOT = "be876adb2ba8cb37a3561bc5a90acabe"
DIGEST = "2-e4b314a8a33e54193d83a40c81dc522e"

names = st.text("aZ09_-", max_size=63).map("a".__add__)
texts = st.text(max_size=50)


@pytest.mark.parametrize(
    ("value", "canonical", "digest"),
    [
        (None, b"null", "2-74234e98afe7498fb5daf1f36ac2d78a"),
        ({"b": 1, "a": [1.5, "é"]}, '{"a":[1.5,"é"],"b":1}'.encode(), "2-b3aa7c2c75e6eda68896ca65edd78b02"),
        ({"path": "/usr/lib"}, b'{"path":"/usr/lib"}', DIGEST),
        (1, b"1", "2-6b86b273ff34fce19d6b804eff5a3f57"),
        (1.0, b"1", "2-6b86b273ff34fce19d6b804eff5a3f57"),
        (1e21, b"1e+21", "2-241c4643fa70b1dcde1205b71be4e3be"),
    ],
)
def test_digest_vectors(value: object, canonical: bytes, digest: str) -> None:
    assert input_digest(canonical) == digest
    assert ANY.digest(ANY.encode(value)) == digest


def test_run_id_vectors() -> None:
    assert keyed_root_id("index-tree", "nightly-2026-11-22") == ROOT
    assert child_id(ROOT, "index-file", key=None, digest=DIGEST) == "94253678c41270c61b8a5238ca299266"
    assert child_id(ROOT, "index-file", key="/usr/lib", digest=DIGEST) == "ce863f9abc458484e095343f98d1b868"


def test_a_key_overrides_the_input() -> None:
    assert child_id(ROOT, "w", key="k", digest="2-a") == child_id(ROOT, "w", key="k", digest="2-b")
    assert child_id(ROOT, "w", key=None, digest="2-a") != child_id(ROOT, "w", key=None, digest="2-b")


def test_a_key_that_looks_like_a_digest_is_not_the_digest() -> None:
    assert child_id(ROOT, "w", key=DIGEST, digest=DIGEST) != child_id(ROOT, "w", key=None, digest=DIGEST)


@given(names, texts, names, texts)
def test_other_workflows_and_keys_are_other_runs(one: str, key: str, other: str, other_key: str) -> None:
    same = (one, key) == (other, other_key)
    assert (child_id(ROOT, one, key=key, digest="") == child_id(ROOT, other, key=other_key, digest="")) is same
    assert (keyed_root_id(one, key) == keyed_root_id(other, other_key)) is same


@given(names, texts)
def test_bulk_ids_are_the_ids_of_single_spawns(workflow: str, key: str) -> None:
    id_of = child_ids(ROOT, workflow, keyed=True)
    for text in (key, f"{key}.", key):  # what they share is not used up
        assert id_of(text).hex() == child_id(ROOT, workflow, key=text, digest="")


def test_a_key_may_be_any_text() -> None:
    assert is_run_id(keyed_root_id("w", "a\nb.*> ☃\0"))
    assert keyed_root_id("w", "") != keyed_root_id("w", " ")


def test_a_key_that_is_no_text_is_refused() -> None:
    """Half of a surrogate pair: other languages would take a replacement character for it, and merge such keys."""
    for derive in (lambda key: keyed_root_id("w", key), lambda key: child_id(ROOT, "w", key=key, digest="")):
        with pytest.raises(InvalidInput, match=r"key 'a\\udcff' cannot be written as UTF-8"):
            derive("a\udcff")


@given(names)
def test_names_fit_a_subject_token(name: str) -> None:
    assert check_name("step name", name) == name
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", "_a", "-a", "a.b", "a*", ">", "a b", "é", "a" * 65, "a\n", "٣", None, 7], ids=repr
)
def test_other_names_are_refused(name: object) -> None:
    with pytest.raises(InvalidName, match="use 1 to 64") as refused:
        check_name("step name", name)
    assert refused.value.name == name
    assert isinstance(refused.value, InvalidDeclaration)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("text", ["", "-", ROOT[:-1], f"{ROOT}0", ROOT.upper(), f"{ROOT}\n", "g" * 32])
def test_other_run_ids_are_refused(text: str) -> None:
    assert not is_run_id(text)
