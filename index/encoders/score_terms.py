"""Terms of the score beside z_k . e_i, as coordinates after those of the vectors' content."""

import numpy as np
import torch
from torch import Tensor, nn

from index.encoders.arguments import Merge
from index.encoders.interface import Encoder, History, Interests, ServedHistory, ServedInterests
from index.encoders.served_layers import serve_linear

# Of the scores of other parts' items, in lengths of an interest. Cosine scores differ by at most 2.
_BARRIER = 3.0


class ScoreTermsEncoder(Encoder):
    """An encoder whose interests score items with terms that are searched like the rest.

    | term | coordinates of interest k | of item i |
    |---|---|---|
    | item_bias: b_i | 1 | b_i |
    | merge "gated": g_k = log softmax_k(G [z_1; ...; z_K]) | g_k | 1 |
    | merge "partitioned": the part c(i) | 0 at k, else -M | 1 at c(i), else 0 |

    So max_k over inner products is max_k (z_k . e_i + g_k) + b_i, or z_c(i) . e_i + b_i: M is three
    lengths of an interest, more than cosines, which partitions need, can make up. `prediction` are
    the logits of the gate. content is D, dim is D and the number of these coordinates.
    """

    def __init__(self, encoder: Encoder, item_bias: bool, merge: Merge) -> None:
        super().__init__()
        self.encoder, self._item_bias, self._merge = encoder, item_bias, merge
        self.interests, self._content = encoder.interests, encoder.dim
        self.reads_gaps = encoder.reads_gaps
        self.dim = self._content + term_count(item_bias, merge, self.interests)
        width = self.interests * self._content
        self.gate = nn.Linear(width, self.interests, bias=False) if merge == "gated" else None

    @property
    def content(self) -> int:
        return self._content

    def forward(self, history: History) -> Interests:
        return self._add_terms(self.encoder(self._content_of(history)))

    def prefix_interests(self, history: History, ends: Tensor) -> Interests:
        return self._add_terms(self.encoder.prefix_interests(self._content_of(history), ends))

    def _content_of(self, history: History) -> History:
        return history._replace(vectors=history.vectors[..., : self._content])

    def _add_terms(self, interests: Interests) -> Interests:
        vectors = interests.vectors
        parts = [vectors]
        if self._item_bias:
            parts.append(vectors.new_ones(*vectors.shape[:2], 1))
        if self.gate is not None:
            logits: Tensor = self.gate(interests.raw.flatten(1))
            interests = interests._replace(prediction=logits)
            parts.append(logits.log_softmax(dim=1)[:, :, None])
        if self._merge == "partitioned":
            others = 1 - torch.eye(self.interests, device=vectors.device)
            lengths = vectors.detach().norm(dim=2, keepdim=True)
            parts.append(-_BARRIER * lengths * others)
        return interests._replace(vectors=torch.cat(parts, dim=2))

    @property
    def uses_gpu(self) -> bool:
        return self.encoder.uses_gpu

    def serve(self, history: ServedHistory) -> ServedInterests:
        if self.gate is not None and self.gate.weight.is_cuda:
            return super().serve(history)
        served = self.encoder.serve(history._replace(vectors=history.vectors[..., : self._content]))
        vectors = served.vectors
        parts = [vectors]
        if self._item_bias:
            parts.append(np.ones((*vectors.shape[:2], 1), np.float32))
        if self.gate is not None:
            # (B, 1, K): each history is a product of its own, as in serve_self_attention.
            logits = serve_linear(self.gate, served.raw.reshape(len(vectors), 1, -1))
            logits -= logits.max(axis=2, keepdims=True)
            logits -= np.log(np.exp(logits).sum(axis=2, keepdims=True))
            parts.append(logits.transpose(0, 2, 1))
        if self._merge == "partitioned":
            lengths = np.sqrt(np.vecdot(vectors, vectors))[:, :, None]
            parts.append(-_BARRIER * lengths * (1 - np.eye(self.interests, dtype=np.float32)))
        return served._replace(vectors=np.concatenate(parts, axis=2))


def term_count(item_bias: bool, merge: Merge, interests: int) -> int:
    """Number of coordinates after the content."""
    return int(item_bias) + {"max": 0, "gated": 1, "partitioned": interests}[merge]
