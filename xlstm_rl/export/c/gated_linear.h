/* One step of linear attention with decays, and activations of its kin. */
#pragma once
#include "layers.h"

/* S [H, K, V] = decay S + k v^T; o [H, V] = q S, or with a bonus [H, K] q (S before + bonus k v^T).
   decay [H, K]; q and k of a head lie `apart` floats behind those of the one before. */
LOCAL void attend_linearly(int64_t H, int64_t K, int64_t V, int64_t apart, const float *q,
                           const float *k, const float *v, const float *decay, const float *bonus,
                           float *S, float *o) {
  memset(o, 0, (size_t)(H * V) * sizeof(float));
  for (int64_t h = 0; h < H; h++, q += apart, k += apart, v += V, o += V)
    for (int64_t r = 0; r < K; r++, S += V)
      FOR_VECTORS(e, V, left) {
        const vf before = load_left(S + e, left), added = broadcast(k[r]) * load_left(v + e, left);
        const vf after = broadcast(decay[h * K + r]) * before + added;
        const vf seen = bonus ? before + broadcast(bonus[h * K + r]) * added : after;
        store_left(o + e, load_left(o + e, left) + broadcast(q[r]) * seen, left);
        store_left(S + e, after, left);
      }
}

LOCAL void apply_sigmoid(int64_t n, float *x) {
  FOR_VECTORS(i, n, left) store_left(x + i, vsigmoid(load_left(x + i, left)), left);
}

LOCAL void multiply(int64_t n, const float *x, float *by) {
  for (int64_t i = 0; i < n; i++) by[i] *= x[i];
}

/* y = x + (before - x) mix */
LOCAL void mix_in(int64_t n, const float *x, const float *before, const float *mix, float *y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] + (before[i] - x[i]) * mix[i];
}
