/* One step of an sLSTM block (Beck et al. 2024, arXiv:2405.04517, figure 10). */
#pragma once
#include "layers.h"
#include "slstm_cell.h"
#include "taps.h"

typedef struct {
  int64_t D, H, W, F;    /* W = 0: no convolution; F = 0: no feed-forward */
  int exponential, unit; /* the forget gate; of the feed-forward's gate */
  matrix input, recurrent, up, down; /* the first two: blocks [4, H], gates in the order i, f, z, o */
  const float *norm, *taps, *taps_bias, *bias, *head_norm;
  const float *ff_norm, *up_bias, *down_bias; /* biases may be null */
} slstm_layer;

/* x [D] becomes the block's output. state: window [W - 1, D], then h, c, n, m, each [D].
   work: 11 D + 2 F floats. */
LOCAL void slstm_layer_step(const slstm_layer *l, float *state, float *x, float *work) {
  const int64_t D = l->D, H = l->H, S = D / H, F = l->F;
  float *u = work, *c = u + D, *raw = c + D, *of_h = raw + 4 * D, *hidden = of_h + 4 * D;
  norm(D, l->norm, x, u);
  if (l->W) {
    taps_step(D, l->W, l->taps, l->taps_bias, u, state, c);
    state += (l->W - 1) * D;
  } else {
    c = u;
  }
  float *h = state, *cell_c = h + D, *n = h + 2 * D, *m = h + 3 * D;
  for (int64_t g = 0; g < 4; g++) {
    diagonal(l->input, g * H, H, S, g < 2 ? c : u, l->bias + g * D, raw + g * D);
    diagonal(l->recurrent, g * H, H, S, h, 0, of_h + g * D);
  }
  add(4 * D, of_h, raw);
  FOR_VECTORS(e, D, left) {
    const slstm_after s =
        cell(load_left(raw + e, left), load_left(raw + D + e, left), load_left(raw + 2 * D + e, left),
             load_left(raw + 3 * D + e, left), load_left(cell_c + e, left), load_left(n + e, left),
             load_left(m + e, left), l->exponential, 1);
    store_left(h + e, s.h, left), store_left(cell_c + e, s.c, left);
    store_left(n + e, s.n, left), store_left(m + e, s.m, left);
  }
  for (int64_t at = 0; at < D; at += S) norm(S, l->head_norm + at, h + at, of_h + at);
  add(D, of_h, x);
  if (!F) return;
  norm(D, l->ff_norm, x, u);
  rows_of(l->up, 0, 2 * F, D, u, l->up_bias, hidden);
  FOR_VECTORS(e, F, left) {
    vf slope;
    const vf gate = activate(l->unit, load_left(hidden + e, left), &slope);
    store_left(hidden + e, gate * load_left(hidden + F + e, left), left);
  }
  rows_of(l->down, 0, D, F, hidden, l->down_bias, u);
  add(D, u, x);
}
