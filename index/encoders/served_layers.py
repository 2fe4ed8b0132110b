"""Layers in numpy, as a server computes them: a call of torch takes longer than their work for one
history. Each gives what its layer of torch gives in evaluation, up to rounding.
"""

import math

import numpy as np
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float32]


def serve_linear(linear: nn.Linear, vectors: Array) -> Array:
    """(..., out) of vectors (..., in)."""
    output: Array = vectors @ linear.weight.detach().numpy().T
    if linear.bias is not None:
        output += linear.bias.detach().numpy()
    return output


def serve_layer_norm(norm: nn.LayerNorm, vectors: Array) -> Array:
    """Of vectors (..., D), over D."""
    centred: Array = vectors - vectors.sum(axis=-1, keepdims=True) / np.float32(vectors.shape[-1])
    variance = np.vecdot(centred, centred)[..., None] / np.float32(vectors.shape[-1])
    centred /= np.sqrt(variance + np.float32(norm.eps))
    centred *= norm.weight.detach().numpy()
    centred += norm.bias.detach().numpy()
    return centred


def serve_swiglu(up: nn.Linear, down: nn.Linear, vectors: Array) -> Array:
    """As index.encoders.transformer_blocks.swiglu, of vectors (T, D)."""
    gate, value = np.split(serve_linear(up, vectors), 2, axis=1)
    return serve_linear(down, gate * sigmoid(gate) * value)


def sigmoid(values: Array) -> Array:
    """By tanh, which does not overflow."""
    halves: Array = np.tanh(values * np.float32(0.5))
    halves *= np.float32(0.5)
    halves += np.float32(0.5)
    return halves


def gelu(values: Array) -> Array:
    """x Phi(x). numpy has no erf: for the few values of one state, Python's is fast enough."""
    shares = map(math.erf, (values * np.float32(math.sqrt(0.5))).ravel().tolist())
    erf = np.fromiter(shares, np.float32, values.size).reshape(values.shape)
    result: Array = values * np.float32(0.5) * (erf + np.float32(1))
    return result


def softmax(logits: Array, axis: int) -> Array:
    """Over the axis, of which one logit at least is finite; the given array is overwritten."""
    logits -= logits.max(axis=axis, keepdims=True)
    shares: Array = np.exp(logits, out=logits)
    shares /= shares.sum(axis=axis, keepdims=True)
    return shares
