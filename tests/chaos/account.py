"""The account of a chaos run: how much it may store, and what each worker's user may publish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SECRET = "chaos"

FULL = 1
"""Bytes: less than any account holds in which something was stored."""

PARTS = {
    "outcomes": ("jf.{0}.run.>", "jf.{0}.step.>", "jf.{0}.mark.>"),
    "joins": ("jf.{0}.join.>", "$KV.jf_{0}_counters.>"),
    "attempts": ("jf.{0}.try.>",),
    "tasks": ("jf.{0}.task.>",),
    "timers": ("jf.{0}.timer.>",),
    "pulls": ("$JS.API.CONSUMER.MSG.NEXT.>",),
    "acknowledgements": ("$JS.ACK.>",),
    "reads": ("$JS.API.DIRECT.GET.>", "$JS.API.STREAM.MSG.GET.>"),
}
"""What a worker's user may lose."""


def user(worker: int) -> str:
    """Return the name of a worker's user."""
    return f"worker-{worker}"


class Account:
    """Everybody but the workers is an administrator, and needs no password."""

    def __init__(self, workers: int) -> None:
        self._denied: dict[int, tuple[str, ...]] = dict.fromkeys(range(workers), ())
        self.storage: int | None = None

    def deny(self, workers: Iterable[int], subjects: Sequence[str]) -> None:
        """Take from some workers the right to publish on ``subjects``; from each, nothing else is taken."""
        self._denied |= dict.fromkeys(workers, tuple(subjects))

    def settings(self) -> str:
        """Return the account in nats-server's configuration language."""
        storage = "enabled" if self.storage is None else f"{{ max_file: {self.storage} }}"
        users = "\n".join(
            f'    {{ user: "{user(worker)}", password: "{SECRET}"{_permissions(denied)} }}'
            for worker, denied in self._denied.items()
        )
        return (
            f"accounts {{ CHAOS {{\n  jetstream: {storage}\n"
            f'  users: [\n    {{ user: "admin", password: "{SECRET}" }}\n{users}\n  ]\n}} }}\n'
            'no_auth_user: "admin"\n'
        )


def _permissions(denied: Sequence[str]) -> str:
    if not denied:
        return ""
    subjects = ", ".join(f'"{subject}"' for subject in denied)
    return f', permissions: {{ publish: {{ allow: ">", deny: [{subjects}] }} }}'
