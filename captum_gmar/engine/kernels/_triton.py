"""The kernels themselves, in Triton. `kernel` runs them; to import this needs Triton.

A program has some keys, or some queries, of one head and iterates over the others, so that pieces of A and of G are in
registers alone. Products add up in float32. No two programs write to one place: the sums come out the same each time.

Letters: Q, K, V, G the query, key, value and gradient of the output; H heads, of which GROUP share a key; D head
dimension, and D_PADDED the power of two that holds it. Strides are of examples, heads and tokens.
"""

import triton
import triton.language as tl


@triton.jit
def _load_tokens(pointer, places, stride, count, D: tl.constexpr, D_PADDED: tl.constexpr):
    """Load some tokens, and zeros beyond the last token and dimension."""
    channels = tl.arange(0, D_PADDED)
    inside = (places[:, None] < count) & (channels[None] < D)
    return tl.load(pointer + places[:, None] * stride + channels[None], mask=inside, other=0.0)


@triton.jit
def _scores(query, key, i, j, QUERIES, KEYS, mask, m_i, m_j, scale, MASK: tl.constexpr, PRECISION: tl.constexpr):
    """Compute the scores that softmax takes."""
    scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    if MASK != 0:
        inside = (i[:, None] < QUERIES) & (j[None] < KEYS)
        masks = tl.load(mask + i[:, None] * m_i + j[None] * m_j, mask=inside, other=0)
        if MASK == 1:
            scores += masks.to(tl.float32)
        else:
            scores = tl.where(masks != 0, scores, float("-inf"))
    return scores


@triton.jit
def _magnitude(gradient, NORM: tl.constexpr):
    """Compute the terms of a norm: |G|, G² or G⁺."""
    if NORM == 1:
        return tl.abs(gradient)
    elif NORM == 2:
        return gradient * gradient
    else:
        return tl.maximum(gradient, 0.0)


@triton.jit
def _product_of(attention, gradient, MATRIX: tl.constexpr):
    """Compute M of A, or of anything in its proportion, and of G: A, A⊙G or (A⊙G)⁺."""
    if MATRIX == 0:
        return attention
    elif MATRIX == 1:
        return attention * gradient
    else:
        return attention * tl.maximum(gradient, 0.0)


@triton.jit
def row_sums(
    Q, K, V, G, MASKS, LSE, TOTALS, NORMS,
    q_n, q_h, q_i, k_n, k_h, k_j, v_n, v_h, v_j, g_n, g_h, g_i, m_n, m_h, m_i, m_j,
    scale, H, GROUP, QUERIES, KEYS,
    D: tl.constexpr, D_PADDED: tl.constexpr, BI: tl.constexpr, BJ: tl.constexpr,
    MASK: tl.constexpr, PRECISION: tl.constexpr, MATRIX: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Compute for each query log Σ exp of its scores, Σ_j M_ij, and its part of the norm.

    MATRIX: 0 for M = A, 1 for A⊙G, 2 for (A⊙G)⁺, 4 for none. NORM: 0 for none, 1 of |G|, 2 of G², 3 of G⁺. Where a mask
    hides all keys there is no attention, as torch has it: the first is infinite, and the second zero.
    """
    blocks = tl.cdiv(QUERIES, BI)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    n, h = pair // H, pair % H
    i = (tl.program_id(0) % blocks) * BI + tl.arange(0, BI)
    q = _load_tokens(Q + n * q_n + h * q_h, i, q_i, QUERIES, D, D_PADDED)
    largest, weight = tl.full((BI,), float("-inf"), tl.float32), tl.zeros((BI,), tl.float32)
    totals, norms = tl.zeros((BI,), tl.float32), tl.zeros((BI,), tl.float32)
    if NORM > 0 or MATRIX < 4:
        g = _load_tokens(G + n * g_n + h * g_h, i, g_i, QUERIES, D, D_PADDED)
    for start in range(0, KEYS, BJ):
        j = start + tl.arange(0, BJ)
        k = _load_tokens(K + n * k_n + h // GROUP * k_h, j, k_j, KEYS, D, D_PADDED)
        scores = _scores(q, k, i, j, QUERIES, KEYS, MASKS + n * m_n + h * m_h, m_i, m_j, scale, MASK, PRECISION)
        scores = tl.where(j[None] < KEYS, scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        shift = tl.where(larger == float("-inf"), 0.0, larger)  # where a mask hid all keys so far
        exponentials, decay = tl.exp(scores - shift[:, None]), tl.exp(largest - shift)
        weight = weight * decay + tl.sum(exponentials, 1)
        if NORM > 0 or MATRIX < 4:
            v = _load_tokens(V + n * v_n + h // GROUP * v_h, j, v_j, KEYS, D, D_PADDED)
            gradient = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        if NORM > 0:
            norms += tl.sum(_magnitude(gradient, NORM), 1)
        if MATRIX < 4:
            totals = totals * decay + tl.sum(_product_of(exponentials, gradient, MATRIX), 1)
        largest = larger
    nowhere = weight == 0
    kept = tl.where(nowhere, 1.0, weight)
    tl.store(LSE + pair * QUERIES + i, tl.where(nowhere, float("inf"), largest + tl.log(kept)), mask=i < QUERIES)
    if MATRIX < 4:
        tl.store(TOTALS + pair * QUERIES + i, totals / kept, mask=i < QUERIES)
    if NORM > 0:
        tl.store(NORMS + pair * QUERIES + i, norms, mask=i < QUERIES)


@triton.jit
def column_sums(
    Q, K, V, G, MASKS, LSE, ROW, COLUMNS, NORMS,
    q_n, q_h, q_i, k_n, k_h, k_j, v_n, v_h, v_j, g_n, g_h, g_i, m_n, m_h, m_i, m_j,
    scale, H, GROUP, QUERIES, KEYS,
    D: tl.constexpr, D_PADDED: tl.constexpr, BI: tl.constexpr, BJ: tl.constexpr,
    MASK: tl.constexpr, PRECISION: tl.constexpr, MATRIX: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Compute for each key Σ_i r_i M_ij, and its part of the norm. MATRIX and NORM as before, and 3 for M = G⁺."""
    blocks = tl.cdiv(KEYS, BJ)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    n, h = pair // H, pair % H
    j = (tl.program_id(0) % blocks) * BJ + tl.arange(0, BJ)
    columns, norms = tl.zeros((BJ,), tl.float32), tl.zeros((BJ,), tl.float32)
    gradient = tl.zeros((BI, BJ), tl.float32)
    if MATRIX < 3:
        k = _load_tokens(K + n * k_n + h // GROUP * k_h, j, k_j, KEYS, D, D_PADDED)
    if NORM > 0 or (MATRIX > 0 and MATRIX < 4):
        v = _load_tokens(V + n * v_n + h // GROUP * v_h, j, v_j, KEYS, D, D_PADDED)
    for start in range(0, QUERIES, BI):
        i = start + tl.arange(0, BI)
        if NORM > 0 or (MATRIX > 0 and MATRIX < 4):
            g = _load_tokens(G + n * g_n + h * g_h, i, g_i, QUERIES, D, D_PADDED)
            gradient = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        if NORM > 0:
            norms += tl.sum(_magnitude(gradient, NORM), 0)
        if MATRIX < 4:
            row = tl.load(ROW + n * QUERIES + i, mask=i < QUERIES, other=0.0)
        if MATRIX < 3:
            q = _load_tokens(Q + n * q_n + h * q_h, i, q_i, QUERIES, D, D_PADDED)
            scores = _scores(q, k, i, j, QUERIES, KEYS, MASKS + n * m_n + h * m_h, m_i, m_j, scale, MASK, PRECISION)
            lse = tl.load(LSE + pair * QUERIES + i, mask=i < QUERIES, other=float("inf"))
            columns += tl.sum(row[:, None] * _product_of(tl.exp(scores - lse[:, None]), gradient, MATRIX), 0)
        if MATRIX == 3:
            columns += tl.sum(row[:, None] * tl.maximum(gradient, 0.0), 0)
    if MATRIX < 4:
        tl.store(COLUMNS + pair * KEYS + j, columns, mask=j < KEYS)
    if NORM > 0:
        tl.store(NORMS + pair * KEYS + j, norms, mask=j < KEYS)
