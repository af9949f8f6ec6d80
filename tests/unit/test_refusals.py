"""All error codes of the server are sorted: what passes, what is final for one message, what is not permitted."""

import json
from pathlib import Path

import pytest

from jetflow.engine.refusals import KNOWN, NOT_PERMITTED, PASSING, Refusal, refusal_of

STATUS = {
    int(err_code): status
    for err_code, status in json.loads(Path(__file__).with_name("server_errors.json").read_text()).items()
}
"""The status of each of the server's error codes."""

FINAL_THOUGH_THE_SERVER_S = {10010, 10012, 10029, 10036, 10042, 10045, 10049, 10050, 10052, 10053, 10062, 10064} | {
    10066,
    10067,
    10069,
    10072,
    10074,
    10096,
    10111,
    10117,
}
"""Codes with a status of 5xx that say that a request, such as one to make a stream, cannot be done as it is."""


def test_every_code_of_the_server_is_known() -> None:
    assert set(STATUS) == set(KNOWN)
    assert set(STATUS) >= PASSING | NOT_PERMITTED
    assert not PASSING & NOT_PERMITTED


@pytest.mark.parametrize("err_code", sorted(code for code, status in STATUS.items() if status >= 409))
def test_a_state_of_the_server_passes_but_for_what_is_named(err_code: int) -> None:
    status = STATUS[err_code]
    if status == 412:  # a condition of the request
        expected = Refusal.FINAL
    elif err_code in NOT_PERMITTED:
        expected = Refusal.NOT_PERMITTED
    else:
        expected = Refusal.FINAL if err_code in FINAL_THOUGH_THE_SERVER_S else Refusal.PASSING
    assert refusal_of(status, err_code) is expected


@pytest.mark.parametrize(
    ("err_code", "description", "expected"),
    [
        (10002, "resource limits exceeded for account", Refusal.PASSING),
        (10023, "insufficient resources", Refusal.PASSING),
        (10047, "insufficient storage resources available", Refusal.PASSING),
        (10008, "JetStream system temporarily unavailable", Refusal.PASSING),
        (10077, "maximum bytes exceeded", Refusal.PASSING),
        (10077, "maximum messages exceeded", Refusal.PASSING),
        (10077, "maximum messages per subject exceeded", Refusal.TAKEN),
        (10077, "message too large", Refusal.FINAL),
        (10071, "wrong last sequence: 7", Refusal.TAKEN),
        (10164, "wrong last sequence", Refusal.PASSING),
        (10054, "message size exceeds maximum allowed", Refusal.FINAL),
        (10097, "header size exceeds maximum allowed of 64k", Refusal.FINAL),
        (10003, "bad request", Refusal.FINAL),
        (10027, "maximum number of streams reached", Refusal.NOT_PERMITTED),
        (10039, "JetStream not enabled for account", Refusal.NOT_PERMITTED),
    ],
)
def test_what_a_refusal_means(err_code: int, description: str, expected: Refusal) -> None:
    assert refusal_of(STATUS[err_code], err_code, description) is expected


@pytest.mark.parametrize(("status", "expected"), [(503, Refusal.PASSING), (429, Refusal.PASSING), (400, Refusal.FINAL)])
def test_a_code_that_is_not_known_yet_is_told_by_its_status(status: int, expected: Refusal) -> None:
    assert refusal_of(status, max(KNOWN) + 1) is expected
