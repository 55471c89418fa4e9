/* Few rows times a matrix [M, K] that is read where it lies: what acting needs. */
#pragma once
#include "tiles.h"

/* y [M] = weights [M, K] x + bias; bias may be null */
LOCAL void matvec(int64_t M, int64_t K, const float *weights, const float *x, const float *bias,
                  float *y) {
  float sums[4 * VW] ALIGNED;
  int64_t m = 0;
  for (; m + 4 <= M; m += 4) { /* four rows at once: as many loads of x as of one */
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
  for (; m < M; m++) y[m] = dot(K, weights + m * K, x) + (bias ? bias[m] : 0);
}

/* floats of scratch for rows_times */
INLINE int64_t rows_times_work(int64_t M, int64_t K) { return 16 * (M + K); }

/* y [n, ldy] = x [n, K] weights^T + bias for n <= 16 rows. From three rows on the rows become the
   lanes of vectors, and the weights are broadcast. */
LOCAL void rows_times(int64_t n, int64_t M, int64_t K, const float *x, int64_t ldx,
                      const float *weights, const float *bias, float *y, int64_t ldy, float *work) {
  if (n < 3) {
    for (int64_t r = 0; r < n; r++) matvec(M, K, weights, x + r * ldx, bias, y + r * ldy);
    return;
  }
  const int64_t lanes = ROUND_UP(n, VW);
  float *turned = work, *products = work + 16 * K;
  if (lanes > n) memset(turned, 0, (size_t)(lanes * K) * sizeof(float));
  transpose(n, K, x, ldx, turned, lanes);
  product(M, lanes, K, (strided){weights, K, 1}, WHOLE, turned, lanes, products, lanes, 0, 0, 1);
  for (int64_t m = 0; bias && m < M; m++)
    for (int64_t i = 0; i < lanes; i += VW)
      store(products + m * lanes + i, load(products + m * lanes + i) + broadcast(bias[m]));
  transpose(M, n, products, lanes, y, ldy);
}
