"""One vector per user, mixed from several interests by a prediction of which one comes next."""

import torch
from pydantic import Field
from torch import Tensor, nn

from index.encoders.arguments import EncoderArguments, Hidden, HistoryLength, InterestCount
from index.encoders.interface import Encoder, History, Interests
from index.encoders.recurrent import last_state
from index.encoders.registry import register
from index.encoders.self_attention import self_attention


@register("timirec")
class TimirecEncoder(Encoder):
    """Wang et al., TiMiRec, CIKM 2022: u = sum_k softmax(p)_k z_k.

    z_k by self-attention with positions counted from the newest item; p (K) by a GRU over an item
    table of its own. Only u is served, as one query. `raw` has the z_k (B, K, D) and `prediction`
    the logits p (B, K): the training needs both.
    """

    class Arguments(EncoderArguments):
        items: int = Field(ge=0, description="N, number of items in the catalogue")
        interests: InterestCount = 4
        hidden: Hidden = 8
        history: HistoryLength

    interests = 1

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim, interests = arguments.dim, arguments.interests
        self.dim = dim
        self.position = nn.Parameter(torch.randn(arguments.history, dim).mul_(0.1))
        self.project = nn.Linear(dim, arguments.hidden)
        self.score = nn.Linear(arguments.hidden, interests)
        self.table = nn.Embedding(arguments.items + 1, dim, padding_idx=0)
        nn.init.normal_(self.table.weight, std=0.1)
        with torch.no_grad():
            self.table.weight[0] = 0
        self.recurrent = nn.GRU(dim, dim, batch_first=True)
        self.predict = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, interests))

    def forward(self, history: History) -> Interests:
        keys = history.vectors + self.position[-history.mask.shape[1] :]
        attention = self_attention(self.project, self.score, keys, history.mask)
        interests = attention @ history.vectors
        state = last_state(self.recurrent, self.table(history.rows), history.mask)
        prediction: Tensor = self.predict(state)
        share = prediction.softmax(dim=1)[:, None, :]
        return Interests(share @ interests, share @ attention, interests, prediction)
