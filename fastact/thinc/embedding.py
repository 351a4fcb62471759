"""Forwards for Thinc's HashEmbed: several side by side, as in spaCy's MultiHashEmbed, are one call into C."""

# No `from __future__ import annotations` here: Thinc's data validation reads a forward's annotations.

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from thinc.api import NumpyOps
from thinc.layers.array_getitem import forward as thinc_getitem
from thinc.layers.chain import forward as thinc_chain
from thinc.layers.concatenate import forward as thinc_concatenate
from thinc.layers.hashembed import forward as thinc_hash_embed
from thinc.types import Floats2d, Ints1d

from .. import backends, settings
from ..backends.interface import HashTable
from .fused import AnyModel, own_gradient
from .ops import FastactOps, same_float_arrays

Callback = Callable[[Any], Any]

# The methods that Thinc's forward and callback call and these do not, or whose results are taken for Thinc's.
_METHODS = ("as_contig", "gather_add", "get_dropout_mask", "hash", "scatter_add")
_KNOWN_METHODS = {name: {getattr(NumpyOps, name), getattr(FastactOps, name)} for name in _METHODS}

_UINT64 = np.dtype(np.uint64)

# Forwards of a chain.  A chain of `ints_getitem` and a hash embedding is an embedding of a column.
CHAIN_FORWARDS: list[Any] = [thinc_chain]


class Embedding(NamedTuple):
    """A hash embedding.

    Attributes:
        node: the layer with the parameter E.
        column: the column of the ids that it takes; None for ids of one axis.
    """

    node: AnyModel
    column: int | None


def hash_embed_forward(model: AnyModel, ids: Ints1d, is_train: bool) -> tuple[Floats2d, Callback]:
    """The forward of Thinc's HashEmbed: ids (rows,) -> vectors (rows, nO), to the bit.

    The callback adds to the gradient of E in place, if that is a C-contiguous array of E's dtype.  Thinc's
    own forward runs for what C does not take: a GPU's arrays, other dtypes, Ops with methods of their own.
    """
    return _run([Embedding(model, None)], ids, is_train) or thinc_hash_embed(model, ids, is_train)


def concatenate_forward(model: AnyModel, X: Any, is_train: bool) -> tuple[Any, Callback]:
    """The forward of Thinc's concatenate: hash embeddings of ids (rows, columns), or of (rows,), as one call.

    Thinc's own forward runs if another layer is among them, and for what C does not take.
    """
    embeddings = embeddings_of(model)
    return (embeddings and _run(embeddings, X, is_train)) or thinc_concatenate(model, X, is_train)


def embeddings_of(model: AnyModel) -> list[Embedding]:
    """The layers of a concatenation, if all are hash embeddings, of columns or else of whole ids; or []."""
    found = []
    for layer in model.layers:
        column = None
        if layer._func in CHAIN_FORWARDS and len(layer.layers) == 2:
            getitem, layer = layer.layers
            column = _column_of(getitem)
            if column is None:
                return []
        if layer._func not in (thinc_hash_embed, hash_embed_forward):
            return []
        found.append(Embedding(layer, column))
    return found if len({embedding.column is None for embedding in found}) == 1 else []


def _column_of(getitem: AnyModel) -> int | None:
    """The column that `ints_getitem((slice(0, None), column))` takes; None for another layer or index."""
    index = getitem.attrs.get("index") if getitem._func is thinc_getitem else None
    if type(index) is not tuple or len(index) != 2 or type(index[1]) is not int:
        return None
    return index[1] if index[0] == slice(0, None) else None


def _run(embeddings: Sequence[Embedding], ids: Any, is_train: bool) -> tuple[Any, Callback] | None:
    """The embeddings side by side, and the callback; None where Thinc's own forward has to run."""
    tables = _tables_of(embeddings, ids)
    if tables is None:
        return None
    rows, dtype = len(ids), tables[0].data.dtype
    if is_train and rows:
        tables = [_with_dropout(table, node) for (node, _), table in zip(embeddings, tables, strict=True)]
    matrix = _contiguous(ids if ids.ndim == 2 else ids[:, None], _UINT64)
    y = np.empty((rows, sum(table.data.shape[1] for table in tables)), dtype)
    keys = np.empty((len(tables), rows, 4), np.uint32)
    backends.get("c").hash_embed(matrix, tuple(tables), y, keys, settings.threads_and_mode())
    shape, ids_dtype, y_shape = ids.shape, ids.dtype, y.shape

    def backprop(d_output: Any) -> Any:
        if np.shape(d_output) != y_shape:
            raise ValueError(f"d_output: got shape {np.shape(d_output)}, wanted {y_shape}")
        _add_gradients(embeddings, tables, _contiguous(np.asarray(d_output), dtype), keys)
        ops = embeddings[0].node.ops
        return ops.alloc1i(rows) if len(shape) == 1 else ops.alloc(shape, dtype=ids_dtype)

    return y, backprop


def _tables_of(embeddings: Sequence[Embedding], ids: Any) -> list[HashTable] | None:
    """The parameters and attributes of the embeddings; None unless C takes all of them, and the ids."""
    axes = 1 if embeddings[0].column is None else 2
    if backends.get_backend() != "c" or type(ids) is not np.ndarray or ids.dtype.kind not in "iu":
        return None
    if ids.ndim != axes or not _are_known([node.ops for node, _ in embeddings]):
        return None
    vectors = [node.get_param("E") for node, _ in embeddings]
    if not same_float_arrays(*vectors):
        return None
    tables = []
    for (node, column), data in zip(embeddings, vectors, strict=True):
        seed = node.attrs["seed"]
        if not (
            type(seed) is int
            and 0 <= seed < 2**32
            and data.ndim == 2
            and 1 <= len(data) < 2**32
            and data.shape[1]
            and data.flags.carray
            and (column is None or 0 <= column < ids.shape[1])
        ):
            return None
        tables.append(HashTable(data, column or 0, seed, None))
    return tables


def _are_known(all_ops: list[Any]) -> bool:
    """Whether the methods of Ops that C stands in for are Thinc's or fastact's own."""
    for kind in set(map(type, all_ops)):
        if any(getattr(kind, name, None) not in known for name, known in _KNOWN_METHODS.items()):
            return False
    return all(_KNOWN_METHODS.keys().isdisjoint(vars(model_ops)) for model_ops in all_ops)


def _contiguous(array: Any, dtype: np.dtype[Any]) -> Any:
    """`array` as C takes it, which tells "unsigned long long" from uint64."""
    return array if array.dtype is dtype and array.flags.carray else array.astype(dtype, order="C")


def _with_dropout(table: HashTable, node: AnyModel) -> HashTable:
    """The table with the mask of its columns, drawn as Thinc draws it, if the layer has a dropout."""
    rate = node.attrs.get("dropout_rate")
    if rate is None or rate <= 0:
        return table
    mask = node.ops.get_dropout_mask((table.data.shape[1],), rate)
    return table._replace(scale=_contiguous(mask, table.data.dtype))


def _add_gradients(
    embeddings: Sequence[Embedding], tables: Sequence[HashTable], d_output: Any, keys: Any
) -> None:
    """Add to the gradient of each E: in place where C can, else by `inc_grad`."""
    grads: list[Any] = []
    fresh = []
    for (node, _), table in zip(embeddings, tables, strict=True):
        grad = own_gradient(node, "E", table.data)
        if grad is None or any(np.may_share_memory(grad, other) for other in grads):  # threads write to both
            grad = np.zeros(table.data.shape, table.data.dtype)
            fresh.append((node, grad))
        grads.append(grad)
    named = tuple(HashTable(grad, 0, 0, table.scale) for table, grad in zip(tables, grads, strict=True))
    backends.get("c").hash_embed_backward(d_output, keys, named, settings.threads_and_mode())
    for node, grad in fresh:
        node.inc_grad("E", grad)


# The forwards that `accelerate` exchanges: fastact's, and Thinc's.
ORIGINALS: dict[Any, Any] = {
    hash_embed_forward: thinc_hash_embed,
    concatenate_forward: thinc_concatenate,
}
