"""What a SavedModel offers, read from its file: TensorFlow is not imported for it."""

from __future__ import annotations

from ml_platform.errors import DataError, SpecError, nearest
from ml_platform.specs.references import ModelFiles
from ml_platform.store.folders import local_path

SIGNATURE = "serving_default"
FILE = "saved_model.pb"
_GRAPHS, _SIGNATURES, _KEY = 2, 5, 1
"""Numbers of SavedModel.meta_graphs, MetaGraphDef.signature_def, and of the key in an entry of a map."""
_INIT = "__saved_model_init_op"
"""Listed with the signatures; TensorFlow itself does not offer it."""


def check_signature(model: ModelFiles, signature: str) -> None:
    """Refuse a signature that a model does not have. Nothing of the model is opened.

    Raises:
        SpecError: Names those that it has.
        DataError: The SavedModel's file cannot be read.
    """
    if model.flavour == "saved_model":
        known = signatures(model)
        if signature not in known:
            raise SpecError(
                f"{model.uri} has no signature {signature!r}",
                got=f"signatures: {', '.join(known) or 'none'}",
                hint=f"name one of them: signature=…, or --signature; {nearest(signature, known)}",
            )
    elif signature != SIGNATURE:
        raise SpecError(
            f"{model.uri} has no signatures",
            wanted="a SavedModel, for --signature",
            got=f"{model.flavour}, signature {signature!r}",
        )


def signatures(model: ModelFiles) -> tuple[str, ...]:
    """Names of a SavedModel's signatures, sorted."""
    from google.protobuf.message import DecodeError

    file = local_path(model.path) / model.entry / FILE
    try:
        graphs = _fields(file.read_bytes(), _GRAPHS)
        entries = [entry for graph in graphs for entry in _fields(graph, _SIGNATURES)]
        names = {key.decode() for entry in entries for key in _fields(entry, _KEY)}
    except (OSError, DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{model.uri} cannot be read as a SavedModel", got=error) from error
    return tuple(sorted(names - {_INIT}))


def _fields(message: bytes, number: int) -> list[bytes]:
    """Texts, bytes or messages of one field of a protobuf message whose type is not known here."""
    from google.protobuf.empty_pb2 import Empty
    from google.protobuf.unknown_fields import UnknownFieldSet

    unknown = Empty()
    unknown.ParseFromString(message)
    fields = UnknownFieldSet(unknown)
    return [field.data for field in fields if field.field_number == number and isinstance(field.data, bytes)]
