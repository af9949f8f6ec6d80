"""When a schedule is due, in words; and its last ticks."""

from __future__ import annotations

import pytest

from jetflow.engine.ticks import Timing
from jetflow.engine.timing_words import in_words


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("*/10 8-18 * * *", "every 10 minutes from 08:00 to 18:59"),
        ("0 * * * *", "every hour"),
        ("15,45 * * * *", "at 15 and 45 minutes past every hour"),
        ("0 */6 * * *", "every 6 hours"),
        ("30 */2 * * 1-5", "at 30 minutes past every 2 hours on weekdays"),
        ("0 3 * * *", "at 03:00 every day"),
        ("0 3,15 * * *", "at 03:00 and 15:00 every day"),
        ("30 2 * * mon", "at 02:30 on Mondays"),
        ("0 9 * * 0", "at 09:00 on Sundays"),
        ("0 9 * * 7", "at 09:00 on Sundays"),
        ("0 9 * * 1,3,5", "at 09:00 on Mondays, Wednesdays and Fridays"),
        ("0 9 * * tue-thu", "at 09:00 on Tuesdays, Wednesdays and Thursdays"),
        ("0 9 * * 6,0", "at 09:00 on weekends"),
        ("0 0 1 * *", "at 00:00 on the 1st of each month"),
        ("0 0 2,3,11,22 * *", "at 00:00 on the 2nd, the 3rd, the 11th and the 22nd of each month"),
        ("0 0 L * *", "at 00:00 on the last day of each month"),
        ("0 0 1 1 *", "at 00:00 on the 1st in January"),
        ("0 12 * jun-aug *", "at 12:00 every day in June, July and August"),
        ("*/20 * * * * *", "every 20 seconds"),
        ("0 0 3 * * *", "at 03:00 every day"),
        ("0 0 13 * 5", "by cron 0 0 13 * 5"),
        ("5/20 * * * *", "by cron 5/20 * * * *"),
        ("0 3 * * MON#2", "by cron 0 3 * * MON#2"),
        ("0 0-23 * * *", "by cron 0 0-23 * * *"),
        ("0 9 * * fri-mon", "by cron 0 9 * * fri-mon"),
    ],
)
def test_a_cron_is_told_in_words(cron: str, words: str) -> None:
    assert in_words(Timing(cron=cron, zone="Europe/Berlin")) == f"{words}, Europe/Berlin"


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        (Timing(every=1), "every second"),
        (Timing(every=90), "every 90 seconds"),
        (Timing(every=1.5), "every 1.5 seconds"),
        (Timing(every=300), "every 5 minutes"),
        (Timing(every=86400), "every day"),
        (Timing(times=(5.0,)), "once"),
        (Timing(times=(5.0, 6.0)), "2 times"),
    ],
)
def test_intervals_and_times_are_told_in_words(timing: Timing, words: str) -> None:
    assert in_words(timing) == words


@pytest.mark.parametrize(
    ("timing", "until", "since", "ticks"),
    [
        (Timing(every=10), 105.0, 0.0, [80, 90, 100]),
        (Timing(every=10), 100.0, 0.0, [80, 90, 100]),
        (Timing(every=10, start=85.0), 105.0, 0.0, [85, 95, 105]),
        (Timing(every=10, start=95.0), 107.0, 0.0, [95, 105]),
        (Timing(times=(1.0, 50.0, 99.0, 200.0)), 105.0, 0.0, [1, 50, 99]),
        (Timing(times=(1.0, 50.0, 99.0, 200.0)), 105.0, 40.0, [50, 99]),
        (Timing(cron="0 0 1 * *"), 1_767_225_600.0, 1_735_689_600.0, [1_761_955_200, 1_764_547_200, 1_767_225_600]),
    ],
)
def test_the_last_ticks_are_found(timing: Timing, until: float, since: float, ticks: list[float]) -> None:
    assert timing.newest(3, since, until) == ticks
