"""The names of the message headers (``docs/wire.md``, section Headers)."""

from __future__ import annotations

from typing import Final


class Header:
    """Names of the message headers."""

    MESSAGE_ID: Final = "Nats-Msg-Id"
    INCREMENT: Final = "Nats-Incr"
    PARENT_STEP: Final = "Jf-Parent-Step"
    VERSION: Final = "Jf-Version"
    DEPTH: Final = "Jf-Depth"
    DIGEST: Final = "Jf-Digest"
    KEY: Final = "Jf-Key"
    METADATA: Final = "Jf-Metadata"
    RUN: Final = "Jf-Run"
    DEADLINE: Final = "Jf-Deadline"
    EAGER: Final = "Jf-Eager"
    ELDER: Final = "Jf-Elder"
    RERUN: Final = "Jf-Rerun"
    SHARED: Final = "Jf-Shared"
    VALUE: Final = "Jf-Value"
    ATTEMPT: Final = "Jf-Attempt"
    NOT_BEFORE: Final = "Jf-Not-Before"
    FIRST: Final = "Jf-First"
    TURN: Final = "Jf-Turn"
    DELIVERY: Final = "Jf-Delivery"
    INDEX: Final = "Jf-Index"
    RAW: Final = "Jf-Raw"
    TRIGGERED: Final = "Jf-Triggered"
    KEPT: Final = "Jf-Kept"
    TRACE: Final = "traceparent"
    TTL: Final = "Nats-TTL"
    ROLLUP: Final = "Nats-Rollup"
    SCHEDULE: Final = "Nats-Schedule"
    SCHEDULE_TARGET: Final = "Nats-Schedule-Target"
    SCHEDULE_NEXT: Final = "Nats-Schedule-Next"
    SCHEDULER: Final = "Nats-Scheduler"
    EXPECTED_STREAM: Final = "Nats-Expected-Stream"
    EXPECTED_LAST: Final = "Nats-Expected-Last-Subject-Sequence"
    EXPECTED_LAST_OF: Final = "Nats-Expected-Last-Subject-Sequence-Subject"
