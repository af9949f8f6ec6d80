"""What is said by a step that is declared idempotent, beside which its twin may run: nothing that two would mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jetflow.errors import NotInOneGo
from jetflow.worker.voice import Voice


class Undertone(Voice):
    """Says anything but chunks."""

    async def written_chunk(self, body: bytes, is_raw: bool) -> None:
        """See `Context.stream`."""
        raise NotInOneGo(self.task.step, "streams nothing")


class Silence(Undertone):
    """What a twin says, which nobody keeps: its original says the same."""

    def progress(self, fraction: float, text: str = "") -> None:
        """See `Context.progress`."""

    def log(
        self,
        level: str,
        message: str,
        *,
        logger: str = "",
        fields: Mapping[str, Any] | None = None,
        at: float | None = None,
    ) -> None:
        """See `Context.log`."""
