/* One row times a matrix [M, K] that is read where it lies. */
#pragma once
#include "vector.h"

/* y [M] = weights [M, K] x + bias; bias may be null */
LOCAL void matvec(int64_t M, int64_t K, const float *weights, const float *x, const float *bias,
                  float *y) {
  float sums[4 * VW] ALIGNED;
  const int64_t fours = M / 4 * 4;
  for (int64_t m = 0; m < fours; m += 4) { /* four rows at once: as many loads of x as of one */
    const float *w = weights + m * K;
    vf a = broadcast(0), b = a, c = a, d = a;
    FOR_VECTORS(k, K, left) {
      const vf e = load_left(x + k, left);
      a += load_left(w + k, left) * e;
      b += load_left(w + K + k, left) * e;
      c += load_left(w + 2 * K + k, left) * e;
      d += load_left(w + 3 * K + k, left) * e;
    }
    store(sums, a), store(sums + VW, b), store(sums + 2 * VW, c), store(sums + 3 * VW, d);
    for (int64_t r = 0; r < 4; r++)
      y[m + r] = sum_lanes(load(sums + r * VW)) + (bias ? bias[m + r] : 0);
  }
  for (int64_t m = fours; m < M; m++) y[m] = dot(K, weights + m * K, x) + (bias ? bias[m] : 0);
}
