"""When to look at a join, and whether it is complete."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetflow.engine.joins import SEAL, Borrowed, JoinRecord, LookLedger, Tally, distinct_ids, id_sum, split_ids
from jetflow.engine.tasks import StepAddress

ids = st.binary(min_size=16, max_size=16)
id_lists = st.lists(ids, max_size=30)
id_sets = st.lists(ids, unique=True, max_size=30)

JOIN = StepAddress("r", "p", "s")


def child(number: int) -> bytes:
    return number.to_bytes(16, "big")


def record(needed: int, **fields: object) -> JoinRecord:
    return JoinRecord(kind="sealed", turn=0, task="t", needed=needed, **fields)  # pyright: ignore[reportArgumentType]


def clean(children: list[bytes]) -> JoinRecord:
    return record(len(children), id_sum=f"{id_sum(b''.join(children)):032x}")


# --- packed ids


@given(id_lists)
def test_packed_ids_come_apart_again(children: list[bytes]) -> None:
    packed = b"".join(children)
    assert list(split_ids(packed)) == children
    assert list(split_ids(distinct_ids(packed))) == list(dict.fromkeys(children))


def test_many_ids_are_told_apart_as_few_are() -> None:
    children = [random.Random(number % 25_000).randbytes(16) for number in range(30_000)]
    found = list(split_ids(distinct_ids(b"".join(children))))
    assert len(found) == len(set(found)) == 25_000
    assert set(found) == set(children)


@given(id_lists, st.randoms(use_true_random=False))
def test_the_sum_of_ids_knows_no_order(children: list[bytes], chance: random.Random) -> None:
    total = id_sum(b"".join(children))
    assert total == sum(int.from_bytes(one, "big") for one in children) % 2**128
    chance.shuffle(children)
    assert id_sum(b"".join(children)) == total


@given(id_lists, id_lists)
def test_the_sum_of_ids_adds_up_over_pages(one: list[bytes], other: list[bytes]) -> None:
    assert id_sum(b"".join(one + other)) == (id_sum(b"".join(one)) + id_sum(b"".join(other))) % 2**128


@given(id_sets, id_lists)
def test_a_join_is_whole_with_exactly_its_children(children: list[bytes], others: list[bytes]) -> None:
    packed = b"".join(children)
    assert clean(children).is_whole(packed)
    assert clean(children).is_whole(b"".join(reversed(children)))
    if len(others) != len(children) or id_sum(b"".join(others)) != id_sum(packed):
        assert not clean(children).is_whole(b"".join(others))
    assert not record(len(children), members=packed).is_whole(packed), "another attempt may have spawned others"
    assert not record(len(children), id_sum=clean(children).id_sum, borrowed=(Borrowed("r", "s"),)).is_whole(packed)


# --- the tally


@given(id_sets, st.data())
def test_a_clean_join_is_complete_with_all_its_children(children: list[bytes], data: st.DataObject) -> None:
    stored = data.draw(st.lists(st.sampled_from(children), unique=True)) if children else []
    tally = Tally(clean(children))
    for one in stored:
        tally.add(one)
    assert tally.missing == len(children) - len(stored)
    assert not tally.disputed


@given(st.lists(ids, unique=True, min_size=2, max_size=20), st.data())
def test_an_outcome_that_nobody_spawned_stands_in_for_none(children: list[bytes], data: st.DataObject) -> None:
    lost, forged = children[0], data.draw(ids.filter(lambda one: one not in children))
    tally = Tally(clean(children))
    tally.add(b"".join([forged, *children[1:]]))
    assert tally.missing == 0
    assert tally.disputed, f"{lost.hex()} is missing"


def test_one_outcome_too_many_is_disputed() -> None:
    tally = Tally(clean([child(1)]))
    tally.add(child(1) + child(2))
    assert tally.disputed


def test_one_outcome_too_many_is_disputed_though_its_id_adds_nothing() -> None:
    tally = Tally(clean([child(1), child(2)]))
    tally.add(child(0) + child(1) + child(2))
    assert tally.disputed


def test_a_borrowed_child_is_not_one_too_many() -> None:
    tally = Tally(record(2, id_sum=clean([child(1)]).id_sum, borrowed=(Borrowed("r", "s"),)))
    tally.add(child(1))
    assert not tally.disputed
    tally.add_borrowed()
    assert tally.missing == 0
    assert not tally.disputed


@given(id_sets, id_sets)
def test_only_members_count(members: list[bytes], stored: list[bytes]) -> None:
    tally = Tally(record(len(members), members=b"".join(members)), b"".join(members))
    tally.add(b"".join(stored))
    assert tally.missing == len(set(members) - set(stored))
    assert not tally.disputed


def test_pages_that_repeat_an_id_never_complete_a_join() -> None:
    members = child(1) + child(2)
    tally = Tally(record(2, members=members), members)
    tally.add(child(1))
    tally.add(child(1))
    assert tally.missing == 1
    clean_tally = Tally(clean([child(1), child(2)]))
    clean_tally.add(child(1))
    clean_tally.add(child(1))
    assert clean_tally.disputed


def test_a_parked_join_needs_some_of_its_members() -> None:
    tally = Tally(record(2, members=b""), child(1) + child(2) + child(3))
    tally.add(child(3))
    assert tally.missing == 1
    tally.add(child(1) + child(2))
    assert tally.missing == 0


def test_borrowed_children_are_counted_beside() -> None:
    tally = Tally(record(2, members=child(1), borrowed=(Borrowed("b", "other"),)), child(1))
    tally.add(child(1))
    assert tally.missing == 1
    tally.add_borrowed()
    assert tally.missing == 0


# --- the counter


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_the_counter_reaches_seal_with_the_last_child_that_it_counts(owned: int, borrowed: int) -> None:
    sealed = record(owned + borrowed, borrowed=tuple(Borrowed(f"{n:032x}", "o") for n in range(borrowed)))
    assert sealed.increment + owned == SEAL
    if owned:
        assert sealed.increment + owned - 1 < SEAL


def test_a_parked_step_that_borrowed_more_than_it_needs() -> None:
    assert record(1, borrowed=(Borrowed("a", "o"), Borrowed("b", "o"))).increment == SEAL


@pytest.mark.parametrize(("fields", "is_clean"), [({}, True), ({"members": b""}, False)])
def test_a_clean_record_names_no_members(fields: dict[str, object], is_clean: bool) -> None:
    assert record(0, **fields).clean is is_clean


# --- the ledger


def test_below_seal_nothing_is_worth_a_look() -> None:
    ledger = LookLedger()
    assert not ledger.worth(JOIN, SEAL - 1)
    assert ledger.worth(JOIN, SEAL)


def test_a_look_that_must_find_the_same_is_spared() -> None:
    ledger = LookLedger()
    ledger.missed(JOIN, SEAL + 5, 3)
    assert [ledger.worth(JOIN, SEAL + value) for value in (5, 6, 7, 8, 9)] == [False, False, False, True, True]
    assert ledger.worth(StepAddress("r", "p", "other"), SEAL)
    ledger.closed(JOIN)
    assert ledger.worth(JOIN, SEAL)


@given(
    st.integers(1, 12),
    st.lists(st.sampled_from(["store", "count", "count again", "look"]), max_size=80),
    st.randoms(use_true_random=False),
)
def test_the_ledger_never_spares_the_look_that_completes_a_join(
    children: int, happenings: list[str], chance: random.Random
) -> None:
    """Children store, then count, some twice; looks at the value just seen may come late. The last count must look."""
    ledger, value = LookLedger(), SEAL - children
    stored: list[int] = []
    counted: list[int] = []
    waiting = list(range(children))
    for happening in [*happenings, *["store", "count"] * children]:
        if happening == "store" and waiting:
            stored.append(waiting.pop(chance.randrange(len(waiting))))
        elif happening == "count" and len(counted) < len(stored):
            counted.append(next(one for one in stored if one not in counted))
            value += 1
        elif happening == "count again" and counted:
            value += 1
        if happening != "store" and value >= SEAL:
            complete = len(stored) == children
            if complete and len(counted) == children and happening == "count":
                assert ledger.worth(JOIN, value)
            if ledger.worth(JOIN, value) and not complete:
                ledger.missed(JOIN, value, children - len(stored))


def test_a_full_ledger_forgets_the_oldest() -> None:
    ledger = LookLedger(capacity=2)
    joins = [StepAddress("r", "p", name) for name in "abc"]
    for join in joins:
        ledger.missed(join, SEAL, 10)
    assert [ledger.worth(join, SEAL + 1) for join in joins] == [True, False, False]
