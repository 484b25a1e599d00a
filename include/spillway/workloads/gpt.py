"""A small GPT: pre-norm blocks, causal attention, the output layer tied to the embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a model is made of.

    Attributes:
        vocabulary: Number of different tokens.
        context: Tokens it can look back on, its own position included.
        width: Size of the vector that stands for one token; a multiple of `heads`.
        layers: Blocks, one upon the other.
        heads: Attention heads in each block.
        dropout: Share of each block's output set to zero while training.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    dropout: float = 0.0


class Attention(nn.Module):
    """Each token looks at itself and those before it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.project_in = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.project_out = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what each token of `x`, (batch, time, width), gathered; same shape."""
        batch, time, width = x.shape
        split = (batch, time, self.heads, width // self.heads)
        query, key, value = (
            part.view(split).transpose(1, 2) for part in self.project_in(x).split(width, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        gathered: Tensor = self.project_out(mixed.transpose(1, 2).reshape(batch, time, width))
        return gathered


class Block(nn.Module):
    """Attention, then two dense layers, each added to what came in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(shape.width), Attention(shape))
        self.think = nn.Sequential(
            nn.LayerNorm(shape.width),
            nn.Linear(shape.width, 4 * shape.width, bias=False),
            nn.GELU(),
            nn.Linear(4 * shape.width, shape.width, bias=False),
        )
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, (batch, time, width), with what this block found added."""
        x = x + self.dropout(self.attend(x))
        sum_: Tensor = x + self.dropout(self.think(x))
        return sum_


class GPT(nn.Module):
    """Predicts the next token at every position.

    Attributes:
        recompute: Whether training keeps of each block its input alone and computes the rest again when gradients need it:
            less memory for more time, and the same bits.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.recompute = False
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        self.apply(self._start)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, (batch, time, vocabulary), for `tokens`, (batch, time)."""
        position = torch.arange(tokens.shape[1], device=tokens.device)
        x = self._through_blocks(self.tokens(tokens) + self.positions(position))
        return functional.linear(self.norm(x), self.tokens.weight)

    def loss(self, tokens: Tensor) -> Tensor:
        """Return the mean loss in nats a token over `tokens`, (batch, time + 1): each but the first is predicted."""
        logits = self(tokens[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def _through_blocks(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if self.recompute and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x

    def _start(self, module: nn.Module) -> None:
        """Draw first weights. Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019."""
        if isinstance(module, nn.Linear | nn.Embedding):
            ends_a_block = isinstance(module, nn.Linear) and module.out_features == self.shape.width
            scale = 1 / math.sqrt(2 * self.shape.layers) if ends_a_block else 1.0
            nn.init.normal_(module.weight, std=0.02 * scale)
