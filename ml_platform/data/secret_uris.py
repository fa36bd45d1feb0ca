"""URIs of sources that need a secret: they name it, and hold it while they are read.

`${TABLE_TOKEN}` is that variable of the environment, else the Prefect Secret block `table-token`.

What a source is called stands in parameters, plans, keys, records, logs and reports: no secret may be in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, quote, urlsplit

from ml_platform.errors import SpecError
from ml_platform.resources.secrets import secret

VARIABLE = re.compile(r"\$\{(\w+)\}")
SECRET = re.compile(r"token|secret|sig|pass|pwd|key|credential|auth|code|session", re.IGNORECASE)
"""Parts of names of a query's fields that are asked for in confidence."""
LONG = 24
"""Letters from which a value is taken for a secret, whatever it is called."""
HIDDEN = "***"


def check_no_secret(uri: str) -> None:
    """Refuse a URI that holds a password, or what looks like a token.

    Raises:
        SpecError: Says how to hand it over. The text holds no secret.
    """
    parts = urlsplit(uri)
    said = [name for name, value in parse_qsl(parts.query) if _is_secret(name, value)]
    password = parts.netloc.rpartition("@")[0].partition(":")[2]
    if password and not VARIABLE.search(password):
        said.append("a password")
    if said:
        raise SpecError(
            f"the address {without_secrets(uri)} holds a secret, which plans and records would keep",
            got=", ".join(said),
            hint="put it into an environment variable, or a Prefect Secret block, and write ${NAME} in its "
            "place, in single quotes",
        )


def without_secrets(uri: str) -> str:
    """As people may see it: without user, password and query.

    >>> without_secrets("https://ada:geheim@host/t.csv?token=geheim")
    'https://host/t.csv'
    """
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


@contextmanager
def filled(uri: str) -> Iterator[str]:
    """The URI with the secrets that it names: never to be shown or kept. Within, no error quotes them.

    Raises:
        SpecError: Nobody has a secret of this name.
        InfrastructureError: Prefect could not be asked.
    """
    secrets = {name: _secret(uri, name) for name in VARIABLE.findall(uri)}
    try:
        yield VARIABLE.sub(lambda found: secrets[found[1]], uri)
    except Exception as error:
        _hide(error, [form for value in secrets.values() for form in (value, quote(value, safe=""))])
        raise


def _secret(uri: str, name: str) -> str:
    value, block = secret(name), name.lower().replace("_", "-")
    if value:
        return value
    raise SpecError(
        f"{without_secrets(uri)} needs the secret {name}",
        wanted=f"the environment variable {name}, or the Prefect Secret block {block!r}",
        got="neither of them, or no Prefect API that could be asked",
        hint=f"export {name}=…, or save the block in Prefect; `make up` keeps a server running",
    )


def _hide(error: BaseException, values: list[str]) -> None:
    link: BaseException | None = error
    while link is not None:
        link.args = tuple(_masked(part, values) if isinstance(part, str) else part for part in link.args)
        for name, value in list(vars(link).items()):
            if isinstance(value, str):
                setattr(link, name, _masked(value, values))
        link = link.__cause__ or link.__context__


def _masked(text: str, values: list[str]) -> str:
    for value in values:
        text = text.replace(value, HIDDEN)
    return text


def _is_secret(name: str, value: str) -> bool:
    return not VARIABLE.search(value) and (bool(SECRET.search(name)) or len(value) >= LONG)
