/* Which rows the taps of a causal depthwise convolution see: tables of row pointers, a step a row.

   Tap k looks k steps back. Where that is before the episode's start the table points to a row of
   zeros, so that no loop over channels asks. */
#pragma once
#include "vector.h"

/* How far back the taps of a step may look, min(W - 1, steps since its episode began), from what it
   was one step before. In front of a sequence that is W - 1 if there is a state, else -1. */
INLINE int64_t next_reach(int64_t reach, int reset, int64_t W) {
  return reset ? 0 : reach + 1 < W ? reach + 1 : W - 1;
}

/* The row k steps before step t: of the sequence [T, ld] or of the state [W - 1, ld_state]. */
INLINE const float *row_back(int64_t t, int64_t k, int64_t W, const float *x, int64_t ld,
                             const float *state, int64_t ld_state) {
  return t >= k ? x + (t - k) * ld : state + (W - 1 + t - k) * ld_state;
}

/* back[j * W + k] for the steps t0 + j, j < n; returns the reach of the last one */
INLINE int64_t look_back(int64_t n, int64_t t0, int64_t W, const uint8_t *reset, int64_t reach,
                         const float *x, int64_t ld, const float *state, int64_t ld_state,
                         const float *zeros, const float **back) {
  for (int64_t j = 0; j < n; j++) {
    reach = next_reach(reach, reset && reset[t0 + j], W);
    for (int64_t k = 0; k < W; k++)
      back[j * W + k] = k <= reach ? row_back(t0 + j, k, W, x, ld, state, ld_state) : zeros;
  }
  return reach;
}

/* The state behind T steps, of which the last one reaches back that far. */
INLINE void conv_state_after(int64_t T, int64_t C, int64_t W, int64_t reach, const float *x,
                             int64_t ld, const float *state, int64_t ld_state, float *after) {
  for (int64_t e = 0; e < W - 1; e++) {
    const int64_t age = W - 2 - e;
    float *to = after + e * C;
    if (age > reach) memset(to, 0, (size_t)C * sizeof(float));
    else memmove(to, row_back(T - 1, age, W, x, ld, state, ld_state),
                 (size_t)C * sizeof(float));
  }
}

/* sum over k of row k times tap k at one vector of channels; tap k is row W - 1 - k of `taps` */
INLINE vf convolve_at(int64_t i, int64_t left, int64_t W, const float *const *back,
                      const float *taps, int64_t ld, vf bias) {
  for (int64_t k = 0; k < W; k++)
    bias += load_left(back[k] + i, left) * load_left(taps + (W - 1 - k) * ld + i, left);
  return bias;
}

typedef struct {
  vf a, b, c, d;
} four_steps;

/* The same for four steps: a tap is loaded once for them, and no sum waits for another. */
INLINE four_steps convolve_four(int64_t i, int64_t W, const float *const *back, const float *taps,
                                int64_t ld, four_steps p) {
  for (int64_t k = 0; k < W; k++) {
    const vf tap = load(taps + (W - 1 - k) * ld + i);
    p.a += load(back[k] + i) * tap;
    p.b += load(back[W + k] + i) * tap;
    p.c += load(back[2 * W + k] + i) * tap;
    p.d += load(back[3 * W + k] + i) * tap;
  }
  return p;
}
