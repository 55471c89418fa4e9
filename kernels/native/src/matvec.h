/* Few rows times a matrix [M, K] that is read where it lies: what acting needs. */
#pragma once
#include "one_row.h"
#include "tiles.h"

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
