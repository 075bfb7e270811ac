"""What the searches of the quantizers share: the best word so far in each lane, and the winner."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def keep_better(score, word, best, best_word):
    """Lane by lane the larger score with its word, the earlier one where equal; NaN never wins."""
    better = score > best
    return tl.where(better, score, best), tl.where(better, word, best_word)


@triton.jit
def winner(best, best_word):
    """A row's word with the largest score, the lowest where equal; best: [rows, lanes]."""
    top = tl.max(best, axis=1)
    return tl.min(tl.where(best == top[:, None], best_word, 0x7FFFFFFF), axis=1)
