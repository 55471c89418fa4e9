/* One step of a Mamba-2 block (Dao & Gu 2024, arXiv:2405.21060, section 7). */
#pragma once
#include "gated_linear.h"
#include "taps.h"

typedef struct {
  int64_t D, H, P, N, W; /* heads of P channels, whose state has N numbers each; W taps */
  matrix project, out;
  const float *norm, *taps, *taps_bias, *a, *step_bias, *skip, *inner_norm; /* a [H], below 0 */
} mamba2_layer;

LOCAL float softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }

/* x [D] becomes the block's output. state: window [W - 1, H P + 2 N], S [H, N, P].
   work: D + 5 H P + 4 N + H + H N floats. */
LOCAL void mamba2_layer_step(const mamba2_layer *l, float *state, float *x, float *work) {
  const int64_t D = l->D, H = l->H, P = l->P, N = l->N, I = H * P, M = I + 2 * N;
  float *normed = work, *z = normed + D, *mixed = z + I, *dt = mixed + M, *seen = dt + H;
  float *v = seen + M, *y = v + I, *decay = y + I;
  norm(D, l->norm, x, normed);
  rows_of(l->project, 0, I + M + H, D, normed, 0, z);
  taps_step(M, l->W, l->taps, l->taps_bias, mixed, state, seen);
  for (int64_t h = 0; h < H; h++) {
    const float step = softplus(dt[h] + l->step_bias[h]), kept = expf(l->a[h] * step);
    for (int64_t e = 0; e < P; e++) v[h * P + e] = step * seen[h * P + e];
    for (int64_t r = 0; r < N; r++) decay[h * N + r] = kept;
  }
  const float *b = seen + I, *c = b + N;
  attend_linearly(H, N, P, 0, c, b, v, decay, 0, state + (l->W - 1) * M, y);
  for (int64_t h = 0; h < H; h++)
    for (int64_t e = h * P; e < (h + 1) * P; e++) y[e] += l->skip[h] * seen[e];
  apply_unit(I, UNIT_SILU, z);
  multiply(I, z, y);
  const float inverse = 1 / sqrtf(dot(I, y, y) / (float)I + NORM_EPS);
  for (int64_t i = 0; i < I; i++) y[i] *= inverse * l->inner_norm[i];
  rows_of(l->out, 0, D, I, y, 0, normed);
  add(D, normed, x);
}
