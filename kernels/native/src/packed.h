/* Linear layers, y = Cin + x W^T. Many rows: W is packed once for all, and rows come in any pieces.
   Few rows, as in acting: W is read where it lies, since packing it would cost as much again. */
#pragma once
#include "gemm.h"

#define FEW_ROWS 48

INLINE int64_t packed_size(int64_t N, int64_t K) { return ROUND_UP(N, TILE_COLUMNS) * K; }

static inline void pack_matrix(int64_t N, int64_t K, matrix B, float *packed) {
  for (int64_t k0 = 0; k0 < K; k0 += GEMM_KC)
    pack_panels(N, k0, K - k0 < GEMM_KC ? K - k0 : GEMM_KC, B, packed + k0 * ROUND_UP(N, TILE_COLUMNS));
}

/* C [M, N] = Cin + A B, B packed; Cin as gemm has it */
static inline void packed_product(int64_t M, int64_t N, int64_t K, const float *A, int64_t lda,
                                  const float *packed, float *C, int64_t ldc, const float *Cin,
                                  int64_t ldi) {
  for (int64_t k0 = 0; k0 < K; k0 += GEMM_KC) {
    const int64_t kc = K - k0 < GEMM_KC ? K - k0 : GEMM_KC;
    const float *panels = packed + k0 * ROUND_UP(N, TILE_COLUMNS), *in = k0 > 0 ? C : Cin;
    const int64_t ld_in = k0 > 0 ? ldc : ldi;
    for (int64_t n = 0; n < N; n += TILE_COLUMNS) {
      const float *panel = panels + n * kc, *cin = in ? in + n : 0;
      if (N - n < TILE_COLUMNS)
        gemm_edge(N - n, M, kc, A + k0, lda, 1, panel, C + n, ldc, cin, ld_in);
      else
        gemm_panel(M, kc, A + k0, lda, 1, 0, panel, C + n, ldc, cin, ld_in);
    }
  }
}

/* four rows of W at a time, along K */
static inline void one_row_linear(int64_t N, int64_t K, const float *x, const float *W, float *y,
                                  const float *in) {
  int64_t n = 0;
  for (; n + 4 <= N; n += 4) {
    const float *w = W + n * K;
    vf a = broadcast(0), b = a, c = a, d = a;
    FOR_VECTORS(k, K, left) {
      const vf v = load_left(x + k, left);
      a += v * load_left(w + k, left), b += v * load_left(w + K + k, left);
      c += v * load_left(w + 2 * K + k, left), d += v * load_left(w + 3 * K + k, left);
    }
    const float sums[4] = {sum_lanes(a), sum_lanes(b), sum_lanes(c), sum_lanes(d)};
    for (int j = 0; j < 4; j++) y[n + j] = sums[j] + (in ? in[n + j] : 0);
  }
  for (; n < N; n++) y[n] = dot(K, x, W + n * K) + (in ? in[n] : 0);
}

INLINE int64_t few_rows_work(int64_t N, int64_t K) { return TILE_COLUMNS * (N + K); }

/* C [M, N] = Cin + x W^T for a few rows x [M, K], W [N, K]: rows are lanes, so W is a left factor */
static inline void few_rows_linear(int64_t M, int64_t N, int64_t K, const float *x, int64_t ldx,
                                   const float *W, float *C, int64_t ldc, const float *Cin, int64_t ldi,
                                   float *work) {
  float *turned = work, *sums = work + TILE_COLUMNS * K;
  for (int64_t m = 0; m < M; m += TILE_COLUMNS) {
    const int64_t rows = M - m < TILE_COLUMNS ? M - m : TILE_COLUMNS;
    const float *in = Cin ? Cin + m * ldi : 0;
    if (rows <= 2) {
      for (int64_t r = 0; r < rows; r++)
        one_row_linear(N, K, x + (m + r) * ldx, W, C + (m + r) * ldc, in ? in + r * ldi : 0);
      continue;
    }
    const int64_t columns = rows <= VW ? VW : TILE_COLUMNS;
    if (rows < columns) memset(turned, 0, (size_t)(K * columns) * sizeof(float));
    transpose(rows, K, x + m * ldx, ldx, turned, columns);
    product(N, columns, K, (strided){W, K, 1}, WHOLE, turned, columns, sums, columns, 0, 0, 1.0f);
    transpose(N, rows, sums, columns, C + m * ldc, ldc);
    for (int64_t r = 0; in && r < rows; r++) {
      float *c = C + (m + r) * ldc;
      FOR_VECTORS(n, N, left)
        store_left(c + n, load_left(c + n, left) + load_left(in + r * ldi + n, left), left);
    }
  }
}
