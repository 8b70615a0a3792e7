"""From the states of a sequence's tokens to one vector: pooling under a mask, in float32."""

from __future__ import annotations

import torch


def pool_tokens(state: torch.Tensor, mask: torch.Tensor, pooling: str | None) -> torch.Tensor:
    """Reduce `[batch, tokens, D]` to float32 `[batch, D]` over the tokens that are not padding.

    A state that is `[batch, D]` already (the output of a head) is returned as it is.

    :param mask: `[batch, tokens]`, 1 at tokens; padding stands after them.
    """
    if state.ndim == 2:
        return state.float()
    if pooling == "first":
        return state[:, 0].float()  # of the one token: no copy of the others is kept alive by it
    state = state.float()
    mask = mask.to(state.device)  # of a network over several GPUs, states lie where their blocks do
    count = mask.sum(1)
    if pooling == "last":
        return state[torch.arange(len(state), device=state.device), count - 1]
    if pooling == "max":
        return state.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)
    weight = mask.unsqueeze(-1).float()
    return (state * weight).sum(1) / count.unsqueeze(-1)
