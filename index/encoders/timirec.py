"""One vector a user, mixed from several interests by what the next one is expected to be."""

import torch
from torch import Tensor, nn

from index.encoders.attention import masked_softmax, over_items
from index.encoders.interface import Encoder, History, Interests
from index.encoders.single import last_state


class TimirecEncoder(Encoder):
    """Wang et al., TiMiRec, CIKM 2022: u = sum_k softmax(p)_k z_k.

    z_k by self-attention with places counted from the newest item; p (K) by a GRU over an item
    table of its own. What is served is u alone, one query. `raw` has the z_k (B, K, D) and
    `prediction` the logits p (B, K): the training needs both.
    """

    interests = 1

    def __init__(
        self, items: int, dim: int = 64, interests: int = 4, hidden: int = 8, history: int = 20
    ) -> None:
        super().__init__()
        self.dim = dim
        self.position = nn.Parameter(torch.randn(history, dim) * 0.1)
        self.project = nn.Linear(dim, hidden)
        self.score = nn.Linear(hidden, interests)
        self.table = nn.Embedding(items + 1, dim, padding_idx=0)
        nn.init.normal_(self.table.weight, std=0.1)
        with torch.no_grad():
            self.table.weight[0] = 0
        self.recurrent = nn.GRU(dim, dim, batch_first=True)
        self.predict = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, interests))

    def forward(self, history: History) -> Interests:
        placed = history.vectors + self.position[-history.mask.shape[1] :]
        logits = over_items(self._score, placed, history.mask)
        attention = masked_softmax(logits.transpose(1, 2), history.mask)
        interests = attention @ history.vectors
        state = last_state(self.recurrent, self.table(history.rows), history.mask)
        prediction: Tensor = self.predict(state)
        share = prediction.softmax(dim=1)[:, None, :]
        return Interests(share @ interests, share @ attention, interests, prediction)

    def _score(self, vectors: Tensor) -> Tensor:
        result: Tensor = self.score(torch.tanh(self.project(vectors)))
        return result
