"""`jetflow users`: accounts and users of least privilege, as nats-server reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from cyclopts import Parameter

from jetflow.cli.options import FLAG, UsageError
from jetflow.wire.roles import ROLES, RoleName, permissions_of
from jetflow.wire.subjects import Subjects

ADMINISTRATOR: Final = "admin"

_SHARED: Final = "JETFLOW"


def users(
    *namespaces: Annotated[str, Parameter(help="The namespaces; `default` if none is named.")],
    shared: Annotated[
        bool, FLAG, Parameter(help="One account for all, whose user `admin` makes the streams; else one account each.")
    ] = False,
) -> int:
    """Print NATS accounts with a user for each role: trigger, worker, viewer and operator.

    Passwords are those of environment variables of the server, such as DEFAULT_WORKER_PASSWORD. Clients and workers
    connect with the inbox prefix that is named beside each user: JETFLOW_INBOX_PREFIX, or --inbox-prefix.

    ```
    jetflow users acme globex --shared > users.conf
    ```
    """
    print(written(namespaces or ("default",), shared=shared), end="")
    return 0


def written(namespaces: Sequence[str], *, shared: bool) -> str:
    """Return the accounts of some namespaces as a part of nats-server's configuration.

    Raises:
        UsageError: one is named twice.
        InvalidName: one does not fit the token rule.
    """
    if len(set(namespaces)) < len(namespaces):
        raise UsageError("a namespace is named twice")
    spaces = [Subjects(namespace) for namespace in namespaces]
    if shared:
        alone = f"{{ user: {ADMINISTRATOR}, password: ${_variable(_SHARED, ADMINISTRATOR)} }}"
        found = [user for names in spaces for user in _users(names, owns_account=False)]
        accounts = [_account(_SHARED, [f"      # makes the streams: jetflow setup\n      {alone}\n", *found])]
    else:
        accounts = [_account(names.namespace, list(_users(names, owns_account=True))) for names in spaces]
    system = f"  SYS {{ users: [ {{ user: sys, password: ${_variable('sys', ADMINISTRATOR)} }} ] }}\n"
    return f"# Written by `{_command(namespaces, shared)}`.\naccounts {{\n{system}{''.join(accounts)}}}\n"


def _command(namespaces: Sequence[str], shared: bool) -> str:
    return " ".join(["jetflow users", *namespaces, *(["--shared"] if shared else [])])


def _account(name: str, written_users: Sequence[str]) -> str:
    return f"  {name} {{\n    jetstream: enabled\n    users: [\n{''.join(written_users)}    ]\n  }}\n"


def _users(names: Subjects, *, owns_account: bool) -> list[str]:
    return [_user(role, names, owns_account=owns_account) for role in ROLES]


def _user(role: RoleName, names: Subjects, *, owns_account: bool) -> str:
    may = permissions_of(role, names, owns_account=owns_account)
    return (
        f"      # connects with the inbox prefix {may.inbox}\n"
        f"      {{ user: {user_of(names, role)}, password: ${_variable(names.namespace, role)}, permissions: {{\n"
        f"        publish: {{ allow: [\n{_listed(may.publish)}        ] }}\n"
        f"        subscribe: {{ allow: [\n{_listed(may.subscribe)}        ] }}\n"
        "      } }\n"
    )


def user_of(names: Subjects, role: RoleName) -> str:
    """Return how the user of a role is called: users of all accounts share one list of names."""
    return f"{names.namespace}-{role}"


def _variable(of: str, role: str) -> str:
    return f"{of}_{role}_password".upper().replace("-", "_")


def _listed(subjects: Sequence[str]) -> str:
    return "".join(f'          "{subject}"\n' for subject in subjects)
