/* One step of the causal convolution of a block, with SiLU. */
#pragma once
#include "vector.h"

/* c [n] = silu(bias + taps [W, n] times the window and u); taps and window [W - 1, n] oldest first.
   The window moves on by one. */
LOCAL void taps_step(int64_t n, int64_t W, const float *taps, const float *bias, const float *u,
                     float *window, float *c) {
  FOR_VECTORS(i, n, left) {
    vf now = load_left(u + i, left);
    vf sum = load_left(bias + i, left) + now * load_left(taps + (W - 1) * n + i, left);
    for (int64_t e = W - 2; e >= 0; e--) { /* from the youngest: each moves one place up */
      const vf old = load_left(window + e * n + i, left);
      sum += old * load_left(taps + e * n + i, left);
      store_left(window + e * n + i, now, left);
      now = old;
    }
    store_left(c + i, sum * vsigmoid(sum), left);
  }
}
