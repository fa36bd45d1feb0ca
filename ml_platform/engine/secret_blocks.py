"""Secrets that lie in Prefect: asked for when they are used, and kept nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from ml_platform.engine.server import api_to_ask
from ml_platform.errors import InfrastructureError
from ml_platform.resources.secrets import kept_by


@contextmanager
def secrets_of_prefect() -> Iterator[None]:
    """Inside, a secret that is in no variable of the environment is looked for in Prefect."""
    with kept_by(secret_in_block):
        yield


def secret_in_block(name: str) -> str | None:
    """The value of a Prefect Secret block; None where there is none, or no Prefect API to ask.

    Args:
        name: Of the secret. TABLE_TOKEN lies in the block `table-token`, as Prefect wants names of blocks.
    Raises:
        InfrastructureError: The API did not answer.
    """
    with api_to_ask() as can_be_asked:
        return _read(name.lower().replace("_", "-")) if can_be_asked else None


def _read(block: str) -> str | None:
    try:
        with get_client(sync_client=True) as client:
            found = client.read_block_document_by_name(block, "secret", include_secrets=True)
    except ObjectNotFound:
        return None
    except Exception as error:
        raise InfrastructureError(
            f"the Prefect Secret block {block!r} cannot be read",
            got=f"{type(error).__name__}: {error}",
            hint="look whether the API answers: python -m ml_platform doctor",
        ) from error
    value = found.data.get("value")
    return None if value is None else str(value)
