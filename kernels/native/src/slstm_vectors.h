/* Rows of a head whose size is no multiple of the vector width, and the scan's small products. */
#pragma once
#include "tiles.h"

/* rows of `count` floats into rows of whole vectors, zeros behind; both with their stride */
INLINE void pad_rows(int64_t rows, int64_t count, const float *from, int64_t from_stride, float *to,
                     int64_t to_stride) {
  for (int64_t r = 0; r < rows; r++)
    FOR_VECTORS(e, count, left)
      store(to + r * to_stride + e, load_left(from + r * from_stride + e, left));
}

INLINE void unpad_rows(int64_t rows, int64_t count, const float *from, int64_t from_stride, float *to,
                       int64_t to_stride) {
  for (int64_t r = 0; r < rows; r++)
    FOR_VECTORS(e, count, left)
      store_left(to + r * to_stride + e, load(from + r * from_stride + e), left);
}

INLINE void clear(int64_t n, float *p) { memset(p, 0, (size_t)n * sizeof(float)); }

/* C [M, N] = (accumulate ? C : 0) + A B; N is a multiple of VW */
static inline void rows_product(int64_t M, int64_t N, int64_t K, strided A, const float *B, int64_t ldb,
                         float *C, int64_t ldc, int accumulate) {
  product(M, N, K, A, WHOLE, B, ldb, C, ldc, accumulate ? C : 0, ldc, 1.0f);
}
