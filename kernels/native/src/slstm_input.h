/* Where the scan's pre-activations come from: they are given, or made of two inputs on the way, so
   that those of a whole sequence never lie in memory; and the same for their gradients. */
#pragma once
#include "slstm.h"
#include "slstm_vectors.h"

/* steps of a chunk, whose pre-activations or gradients are at hand together */
INLINE int64_t slstm_steps(int64_t rows) { return SLSTM_CHUNK / rows; }

typedef struct {
  int64_t first, rows, head; /* environments first ... first + rows */
  int64_t start, steps;
} slstm_chunk;

/* raw [steps][rows][4][Dp] = x + b, or what the inputs make of them + b; weight, b [4][..] with rows of Dp */
static inline void slstm_fill(const xl_slstm_forward_args *a, slstm_chunk k, const float *const weight[4],
                       const float *b, float *raw) {
  const int64_t D = a->D, Dp = slstm_padded(D), width = a->H * D, ld = k.rows * 4 * Dp;
  for (int64_t r = 0; r < k.rows; r++) {
    const int64_t row = (k.first + r) * a->T + k.start;
    for (int64_t g = 0; g < 4; g++) {
      float *to = raw + (r * 4 + g) * Dp;
      if (!a->x) {
        const float *from = (g < 2 ? a->convolved : a->normed) + row * width + k.head * D;
        product(k.steps, Dp, D, (strided){from, width, 1}, WHOLE, weight[g], Dp, to, ld, b + g * Dp, 0,
                1.0f);
        continue;
      }
      const float *x = a->x + (row * 4 + g) * width + k.head * D;
      for (int64_t t = 0; t < k.steps; t++, x += 4 * width)
        FOR_VECTORS(e, D, left) store(to + t * ld + e, load_left(x + e, left) + load(b + g * Dp + e));
    }
  }
}

/* From draw [steps][rows][4][Dp] to dx, or to both inputs' and into dweight [4][D][Dp]. */
static inline void slstm_fill_backward(const xl_slstm_backward_args *a, slstm_chunk k,
                                const float *transposed, const float *draw, float *dweight) {
  const int64_t D = a->D, Dp = slstm_padded(D), width = a->H * D, ld = k.rows * 4 * Dp;
  float whole[SLSTM_CHUNK * VW];
  for (int64_t r = 0; r < k.rows; r++) {
    const int64_t row = (k.first + r) * a->T + k.start;
    for (int64_t g = 0; g < 4; g++) {
      const float *d = draw + (r * 4 + g) * Dp;
      if (a->dx) {
        unpad_rows(k.steps, D, d, ld, a->dx + (row * 4 + g) * width + k.head * D, 4 * width);
        continue;
      }
      const int64_t at = row * width + k.head * D;
      float *to = (g < 2 ? a->dconvolved : a->dnormed) + at;
      const int add = g % 2 || (g == 2 && a->dconvolved == a->dnormed);
      const float *t = transposed + g * Dp * Dp;
      int64_t n = D / VW * VW;
      product(k.steps, n, D, (strided){d, ld, 1}, WHOLE, t, Dp, to, width, add ? to : 0, width, 1.0f);
      if (n < D) { /* the last columns beside it: behind them lies the next head */
        pad_rows(add ? k.steps : 0, D - n, to + n, width, whole, VW);
        product(k.steps, VW, D, (strided){d, ld, 1}, WHOLE, t + n, Dp, whole, VW, add ? whole : 0, VW,
                1.0f);
        unpad_rows(k.steps, D - n, whole, VW, to + n, width);
      }
      product(D, Dp, k.steps, (strided){(g < 2 ? a->convolved : a->normed) + at, 1, width}, WHOLE, d, ld,
              dweight + g * D * Dp, Dp, dweight + g * D * Dp, Dp, 1.0f);
    }
  }
}
