"""Names, digests and run ids. The vectors stand in docs/wire.md: a change here breaks other languages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetflow.engine.identity import (
    check_name,
    child_id,
    child_id_bytes,
    child_id_prefix,
    input_digest,
    is_name,
    is_run_id,
    keyed_root_id,
)
from jetflow.errors import InvalidDeclaration, InvalidName
from jetflow.wire.codec import ANY

ROOT = "78340d12c595af79046e30173122f281"
DIGEST = "1-02a565f6dd745636a2cf33409f364dd4"

names = st.text("aZ09_-", max_size=63).map("a".__add__)
texts = st.text(max_size=50)


@pytest.mark.parametrize(
    ("value", "canonical", "digest"),
    [
        (None, b"null", "1-941dffce4e4308ceb33e87326003257d"),
        ({"b": 1, "a": [1.5, "é"]}, '{"a":[1.5,"é"],"b":1}'.encode(), "1-ad9f863c3126904efde68135fa0d14ff"),
        ({"path": "/usr/lib"}, b'{"path":"/usr/lib"}', DIGEST),
        (1, b"1", "1-cea3878a334b240469d159ff840b6434"),
        (1.0, b"1.0", "1-5f8a2d42fe0030845fc28162720f81ef"),
        (1e21, b"1e21", "1-7fcf0ad78c0cb388853247506f75263a"),
    ],
)
def test_digest_vectors(value: object, canonical: bytes, digest: str) -> None:
    assert ANY.encode(value) == canonical
    assert input_digest(canonical) == digest


def test_run_id_vectors() -> None:
    assert keyed_root_id("index-tree", "nightly-2026-11-22") == ROOT
    assert child_id(ROOT, "index-file", key=None, digest=DIGEST) == "3fd6da33a157ed326edd3778c9140e9b"
    assert child_id(ROOT, "index-file", key="/usr/lib", digest=DIGEST) == "f350aa21aead2032a1212dda0f5ec9c5"


def test_a_key_overrides_the_input() -> None:
    assert child_id(ROOT, "w", key="k", digest="1-a") == child_id(ROOT, "w", key="k", digest="1-b")
    assert child_id(ROOT, "w", key=None, digest="1-a") != child_id(ROOT, "w", key=None, digest="1-b")


def test_a_key_that_looks_like_a_digest_is_not_the_digest() -> None:
    assert child_id(ROOT, "w", key=DIGEST, digest=DIGEST) != child_id(ROOT, "w", key=None, digest=DIGEST)


@given(names, texts, names, texts)
def test_other_workflows_and_keys_are_other_runs(one: str, key: str, other: str, other_key: str) -> None:
    same = (one, key) == (other, other_key)
    assert (child_id(ROOT, one, key=key, digest="") == child_id(ROOT, other, key=other_key, digest="")) is same
    assert (keyed_root_id(one, key) == keyed_root_id(other, other_key)) is same


@given(names, texts)
def test_bulk_ids_are_the_ids_of_single_spawns(workflow: str, key: str) -> None:
    prefix = child_id_prefix(ROOT, workflow, keyed=True)
    for text in (key, f"{key}.", key):  # the shared prefix is not used up
        assert child_id_bytes(prefix, text).hex() == child_id(ROOT, workflow, key=text, digest="")


def test_a_key_may_be_any_text() -> None:
    assert is_run_id(keyed_root_id("w", "a\nb.*>\udcff"))


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
