/* C [M, N] = Cin + A B for any M, N, K: B packed into panels, tiles in registers.

   B is cut into KC rows by TILE_COLUMNS columns, packed without gaps (and padded with zeros), so
   that a panel stays in the first-level cache while the rows of A pass; MC rows of A stay in the
   second. A is read where it lies if its rows are contiguous, else packed too. */
#pragma once
#include "tiles.h"

#define GEMM_KC 256
#define GEMM_MC 120 /* a multiple of 6 and of 8 */

typedef struct {
  const float *p;
  int64_t ld;
  int transposed; /* given as [columns, rows] */
} matrix;

/* floats of scratch for a product with N columns */
INLINE int64_t gemm_work(int64_t N) {
  return (int64_t)GEMM_KC * (ROUND_UP(N, TILE_COLUMNS) + GEMM_MC);
}

/* rows k0 ... k0 + kc of B, panel after panel */
INLINE void pack_panels(int64_t N, int64_t k0, int64_t kc, matrix B, float *packed) {
  for (int64_t n = 0; n < N; n += TILE_COLUMNS, packed += kc * TILE_COLUMNS) {
    const int64_t width = N - n < TILE_COLUMNS ? N - n : TILE_COLUMNS;
    if (width < TILE_COLUMNS) memset(packed, 0, (size_t)(kc * TILE_COLUMNS) * sizeof(float));
    if (B.transposed) transpose(width, kc, B.p + n * B.ld + k0, B.ld, packed, TILE_COLUMNS);
    else if (width == TILE_COLUMNS)
      for (int64_t k = 0; k < kc; k++) {
        const float *from = B.p + (k0 + k) * B.ld + n;
        const vf x = load(from), y = load(from + VW);
        store(packed + k * TILE_COLUMNS, x);
        store(packed + k * TILE_COLUMNS + VW, y);
      }
    else
      for (int64_t k = 0; k < kc; k++)
        memcpy(packed + k * TILE_COLUMNS, B.p + (k0 + k) * B.ld + n, (size_t)width * sizeof(float));
  }
}

/* mc rows of a transposed A as tiles of [kc, TILE_ROWS]; the last rows are left to their strides */
INLINE void pack_rows(int64_t mc, int64_t kc, const float *a, int64_t ld, float *packed) {
  for (int64_t m = 0; m + TILE_ROWS <= mc; m += TILE_ROWS)
    for (int64_t k = 0; k < kc; k++, packed += TILE_ROWS)
      memcpy(packed, a + k * ld + m, TILE_ROWS * sizeof(float));
}

#define GEMM_TILE(R)                                                                        \
  for (; m + R <= mc; m += R)                                                               \
    tile_##R##x2(kc, a + m * row, row, col, panel, TILE_COLUMNS, c + m * ldc, ldc,          \
                 cin ? cin + m * ldi : 0, ldi, 1.0f);

/* one panel of B with mc rows of A; `packed` are those of TILE_ROWS tiles, or none */
static void gemm_panel(int64_t mc, int64_t kc, const float *a, int64_t row, int64_t col,
                       const float *packed, const float *panel, float *c, int64_t ldc,
                       const float *cin, int64_t ldi) {
  int64_t m = 0;
  for (; m + TILE_ROWS <= mc; m += TILE_ROWS)
    if (packed)
      TILE_LARGE_x2(kc, packed + m * kc, 1, TILE_ROWS, panel, TILE_COLUMNS, c + m * ldc, ldc,
                    cin ? cin + m * ldi : 0, ldi, 1.0f);
    else
      TILE_LARGE_x2(kc, a + m * row, row, col, panel, TILE_COLUMNS, c + m * ldc, ldc,
                    cin ? cin + m * ldi : 0, ldi, 1.0f);
  GEMM_TILE(4)
  GEMM_TILE(2)
  GEMM_TILE(1)
}

/* a panel of fewer columns than a tile goes through a whole one beside C */
static void gemm_edge(int64_t width, int64_t mc, int64_t kc, const float *a, int64_t row,
                      int64_t col, const float *panel, float *c, int64_t ldc, const float *cin,
                      int64_t ldi) {
  float whole[TILE_COLUMNS] ALIGNED;
  const size_t bytes = (size_t)width * sizeof(float);
  memset(whole, 0, sizeof whole);
  for (int64_t m = 0; m < mc; m++) {
    if (cin) memcpy(whole, cin + m * ldi, bytes);
    tile_1x2(kc, a + m * row, row, col, panel, TILE_COLUMNS, whole, 0, cin ? whole : 0, 0, 1.0f);
    memcpy(c + m * ldc, whole, bytes);
  }
}

/* C = Cin + A B; Cin may be C, null for zero, or one row for all with ldi = 0 (a bias) */
LOCAL void gemm(int64_t M, int64_t N, int64_t K, matrix A, matrix B, float *C, int64_t ldc,
                 const float *Cin, int64_t ldi, float *work) {
  float *panels = work, *rows = work + (int64_t)GEMM_KC * ROUND_UP(N, TILE_COLUMNS);
  const int64_t row = A.transposed ? 1 : A.ld, col = A.transposed ? A.ld : 1;
  for (int64_t k0 = 0; k0 < K; k0 += GEMM_KC) {
    const int64_t kc = K - k0 < GEMM_KC ? K - k0 : GEMM_KC;
    pack_panels(N, k0, kc, B, panels);
    const float *in = k0 > 0 ? C : Cin;
    const int64_t ld_in = k0 > 0 ? ldc : ldi;
    for (int64_t m = 0; m < M; m += GEMM_MC) {
      const int64_t mc = M - m < GEMM_MC ? M - m : GEMM_MC;
      const float *a = A.p + m * row + k0 * col;
      if (A.transposed) pack_rows(mc, kc, a, A.ld, rows);
      for (int64_t n = 0; n < N; n += TILE_COLUMNS) {
        const float *panel = panels + n * kc, *cin = in ? in + m * ld_in + n : 0;
        float *c = C + m * ldc + n;
        if (N - n < TILE_COLUMNS) gemm_edge(N - n, mc, kc, a, row, col, panel, c, ldc, cin, ld_in);
        else
          gemm_panel(mc, kc, a, row, col, A.transposed ? rows : 0, panel, c, ldc, cin, ld_in);
      }
    }
  }
}
