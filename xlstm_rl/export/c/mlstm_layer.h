/* One step of an mLSTM block (Beck et al. 2024, arXiv:2405.04517, figure 11). */
#pragma once
#include "layers.h"
#include "mlstm_step.h"
#include "taps.h"

typedef struct {
  int64_t D, I, H, W, S; /* W = 0: no convolution; S: block size of q, k, v */
  int exponential;       /* the forget gate */
  matrix up, qkv, gate, down;
  const float *norm, *up_bias, *taps, *taps_bias, *qkv_bias, *gate_bias; /* biases may be null */
  const float *head_norm, *skip, *down_bias;
} mlstm_layer;

/* x [D] becomes the block's output. state: window [W - 1, I], C [H, K, K], n [H, K], m [H]. work: D + 8 I + 2 H
   floats. */
LOCAL void mlstm_layer_step(const mlstm_layer *l, float *state, float *x, float *work) {
  const int64_t D = l->D, I = l->I, H = l->H, K = I / H;
  float *normed = work, *u = normed + D, *z = u + I, *qkv = z + I, *h = qkv + 3 * I, *written = h + I;
  float *c = written + I, *i = c + I, *f = i + H;
  norm(D, l->norm, x, normed);
  rows_of(l->up, 0, 2 * I, D, normed, l->up_bias, u);
  if (l->W) {
    taps_step(I, l->W, l->taps, l->taps_bias, u, state, c);
    state += (l->W - 1) * I;
  } else {
    memcpy(c, u, (size_t)I * sizeof(float));
  }
  const int64_t blocks = I / l->S;
  for (int64_t e = 0; e < 3; e++)
    diagonal(l->qkv, e * blocks, blocks, l->S, e < 2 ? c : u, l->qkv_bias ? l->qkv_bias + e * I : 0,
             qkv + e * I);
  rows_of(l->gate, 0, 2 * H, 3 * I, qkv, l->gate_bias, i);
  float *C = state, *n = C + H * K * K, *m = n + H * K;
  for (int64_t first = 0; first < H; first += STEP_GATES) {
    step_gates gates;
    const int64_t count = H - first < STEP_GATES ? H - first : STEP_GATES;
    float *own = C + first * K * K, *sums = n + first * K;
    make_step_gates(count, H, K, K, i + first, f + first, m + first, own, sums, 0, l->exponential,
                    m + first, &gates);
    for (int64_t e = 0; e < count; e++) {
      const float *q = qkv + (first + e) * K;
      step_head(K, K, q, q + I, q + 2 * I, &gates, e, own + e * K * K, sums + e * K,
                own + e * K * K, sums + e * K, h + (first + e) * K, written);
    }
  }
  for (int64_t at = 0; at < I; at += K) {
    norm(K, l->head_norm + at, h + at, h + at);
    FOR_VECTORS(e, K, left) {
      const vf skipped = load_left(l->skip + at + e, left) * load_left(c + at + e, left);
      const vf gate = load_left(z + at + e, left), inside = load_left(h + at + e, left) + skipped;
      store_left(h + at + e, inside * gate * vsigmoid(gate), left);
    }
  }
  rows_of(l->down, 0, D, I, h, l->down_bias, normed);
  add(D, normed, x);
}
