/* The causal convolution of one environment with SiLU, and its backward.

   Input k steps back of step t is seen if it lies in t's episode: `seen[t]` counts them. Inputs
   before the first step are those of the state; without one there are none. */
#pragma once
#include "vector.h"

/* seen [T]: how many earlier inputs each step sees, at most `back`; the first of those that the
   state after the last step still holds is returned, as a step (which is below 0 in the state) */
static inline int64_t window_seen(int64_t T, int64_t back, const uint8_t *reset, int has_state,
                                  int32_t *seen) {
  int64_t start = has_state ? -back : 0;
  for (int64_t t = 0; t < T; t++) {
    if (reset && reset[t]) start = t;
    seen[t] = (int32_t)(t - start < back ? t - start : back);
  }
  return start > T - back ? start : T - back;
}

/* c [T, D] = silu(bias + sum over k of the input k steps back times taps [k][D]); `gate` is its
   sigmoid. state [back, D] or null. */
static inline void window_forward(int64_t T, int64_t D, int64_t back, const float *u, const float *state,
                                  const int32_t *seen, const float *taps, const float *bias, float *c,
                                  float *gate) {
  for (int64_t t = 0; t < T; t++)
    FOR_VECTORS(i, D, left) {
      vf sum = load_left(bias + i, left) + load_left(u + t * D + i, left) * load_left(taps + i, left);
      for (int64_t k = 1; k <= seen[t]; k++) {
        const float *from = t >= k ? u + (t - k) * D : state + (back + t - k) * D;
        sum += load_left(from + i, left) * load_left(taps + k * D + i, left);
      }
      const vf s = vsigmoid(sum);
      store_left(gate + t * D + i, s, left);
      store_left(c + t * D + i, sum * s, left);
    }
}

/* state [back, D] after the last step; it may be the one before. First kept step: see window_seen. */
static inline void window_state(int64_t T, int64_t D, int64_t back, const float *u, const float *before,
                                int64_t kept, float *after) {
  for (int64_t e = 0; e < back; e++) {
    const int64_t t = T - back + e;
    const size_t bytes = (size_t)D * sizeof(float);
    if (t < kept) memset(after + e * D, 0, bytes);
    else memmove(after + e * D, t >= 0 ? u + t * D : before + (back + t) * D, bytes);
  }
}

/* dc becomes the gradient before SiLU; du += those of the inputs, dtaps [back + 1][D] and dbias +=
   theirs; dbefore [back, D] is written. dafter, of the state after the last step, may be null. */
static inline void window_backward(int64_t T, int64_t D, int64_t back, const float *u, const float *state,
                                   const int32_t *seen, int64_t kept, const float *taps, const float *c,
                                   const float *gate, float *dc, const float *dafter, float *du,
                                   float *dtaps, float *dbias, float *dbefore) {
  for (int64_t t = 0; t < T; t++)
    FOR_VECTORS(i, D, left) {
      const vf s = load_left(gate + t * D + i, left);
      const vf e = load_left(dc + t * D + i, left) *
                   (s + load_left(c + t * D + i, left) * (broadcast(1) - s));
      store_left(dc + t * D + i, e, left);
      store_left(dbias + i, load_left(dbias + i, left) + e, left);
    }
  for (int64_t at = state ? -back : 0; at < T; at++) { /* an input, and the steps that saw it */
    const float *input = at >= 0 ? u + at * D : state + (back + at) * D;
    float *to = at >= 0 ? du + at * D : dbefore ? dbefore + (back + at) * D : 0;
    const float *after = dafter && at >= kept && at >= T - back ? dafter + (at - T + back) * D : 0;
    FOR_VECTORS(i, D, left) {
      const vf x = load_left(input + i, left);
      vf sum = at >= 0 ? load_left(to + i, left) : broadcast(0);
      if (after) sum += load_left(after + i, left);
      for (int64_t k = at < 0 ? -at : 0; k <= back && at + k < T; k++) {
        if (seen[at + k] < k) break; /* an episode began between: those behind do not see it either */
        const vf e = load_left(dc + (at + k) * D + i, left);
        sum += e * load_left(taps + k * D + i, left);
        float *d = dtaps + k * D + i;
        store_left(d, load_left(d, left) + e * x, left);
      }
      if (to) store_left(to + i, sum, left);
    }
  }
}
