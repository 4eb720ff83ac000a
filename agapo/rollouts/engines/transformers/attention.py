"""Attention for decoding one token a row: grouped queries read the cache as it lies.

transformers' SDPA path repeats keys and values for grouped queries when there is a mask, which copies the cache at
every step. With one query a row, the query heads that share a key head can stand in for query positions instead.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "agapo_decode"


def decode_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return attention [rows, 1, heads, head_dim] of query [rows, heads, 1, head_dim] over the cached columns.

    key, value [rows, key_heads, columns, head_dim]; attention_mask [rows, 1, 1, columns] or None. More than one
    query a row (the prefill) takes transformers' own path.
    """
    rows, heads, queries, width = query.shape
    if queries > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], width)
    output = F.scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return output.reshape(rows, 1, heads, width), None


AttentionInterface.register(NAME, decode_attention)
