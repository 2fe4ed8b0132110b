"""The coordinates of item vectors after their content."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from index.encoders.arguments import Merge
from training.models.clusters import centers_of, partition


class ItemTerms(nn.Module):
    """What ScoreTermsEncoder's interests meet in an item: its bias, 1 for the gate, its part.

    popularity (N + 1,): interactions of each row; the biases begin at its log. interests: K, also
    the number of parts.
    """

    def __init__(self, popularity: Tensor, item_bias: bool, merge: Merge, interests: int) -> None:
        super().__init__()
        self._merge, self._interests = merge, interests
        bias = popularity.clamp_min(1).log().float()
        bias[0] = 0
        self.bias = nn.Parameter(bias) if item_bias else None
        if merge == "partitioned":
            self.register_buffer("parts", torch.arange(len(popularity)) % interests)

    def append(self, content: Tensor, rows: Tensor) -> Tensor:
        """(n, D + terms) of the content (n, D) of rows (n,); zero for row 0."""
        terms = [content]
        is_item = (rows > 0).to(content.dtype)[:, None]
        if self.bias is not None:
            terms.append(self.bias.to(rows.device)[rows][:, None] * is_item)
        if self._merge == "gated":
            terms.append(is_item)
        if (parts := self.parts_of(rows)) is not None:
            terms.append(F.one_hot(parts, self._interests) * is_item)
        return torch.cat(terms, dim=1) if len(terms) > 1 else content

    def parts_of(self, rows: Tensor) -> Tensor | None:
        """(n,) the part of each row, 0..K - 1; None without a partition."""
        if self._merge != "partitioned":
            return None
        assert isinstance(self.parts, Tensor)
        return self.parts[rows]

    def take(self, rows: Tensor, terms: Tensor, content: Tensor) -> None:
        """Take over the terms (n, T) that rows (n,) had in a release of the same arguments.

        content (N + 1, D): an item of no such row joins the part whose centre is nearest.
        """
        if self.bias is not None:
            self.bias[rows] = terms[:, 0]
        if self._merge == "partitioned":
            assert isinstance(self.parts, Tensor)
            parts = terms[:, -self._interests :].argmax(dim=1)
            unit = F.normalize(content, dim=1)
            centers = centers_of(unit[rows], parts, self._interests, unit[rows[: self._interests]])
            self.parts.copy_((unit @ centers.T).argmax(dim=1))
            self.parts[rows] = parts

    def refresh_parts(self, content: Tensor) -> None:
        """Cluster the items by their content (N + 1, D); a part keeps its interest."""
        if self._merge == "partitioned":
            assert isinstance(self.parts, Tensor)
            self.parts[1:] = partition(content[1:], self.parts[1:], self._interests)
