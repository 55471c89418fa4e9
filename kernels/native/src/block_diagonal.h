/* Rows times a block-diagonal matrix: y [n, G * S] = x [n, G * S] @ blocks [G, S (from), S (to)].

   Blocks of 4, the default, are spread over the lanes of vectors: lanes [4, I] holds in row i, at
   channel 4 g + o, the weight [g, i, o]; then four products of x with lane i of each four broadcast
   make a vector of y. Blocks of whole vectors are products of tiles; others are plain loops. */
#pragma once
#include "tiles.h"

#if VW == 16
#define FOURS(x, i)                                                                           \
  SHUFFLE(x, x, i, i, i, i, 4 + i, 4 + i, 4 + i, 4 + i, 8 + i, 8 + i, 8 + i, 8 + i, 12 + i,   \
          12 + i, 12 + i, 12 + i)
#elif VW == 8
#define FOURS(x, i) SHUFFLE(x, x, i, i, i, i, 4 + i, 4 + i, 4 + i, 4 + i)
#else
#define FOURS(x, i) SHUFFLE(x, x, i, i, i, i)
#endif

/* blocks [I / 4, 4, 4] as lanes [4, ld], with `turned` those of the transposed matrix; what lies
   behind I in a row is left alone */
INLINE void spread_lanes(int64_t I, const float *blocks, float *lanes, int64_t ld, int turned) {
  for (int64_t g = 0; g < I / 4; g++, blocks += 16)
    for (int64_t i = 0; i < 4; i++)
      for (int64_t o = 0; o < 4; o++) {
        if (turned) lanes[o * ld + 4 * g + i] = blocks[4 * i + o];
        else lanes[i * ld + 4 * g + o] = blocks[4 * i + o];
      }
}

typedef struct {
  vf w0, w1, w2, w3;
} four_lanes;

INLINE four_lanes load_lanes(const float *lanes, int64_t ld) {
  return (four_lanes){load(lanes), load(lanes + ld), load(lanes + 2 * ld), load(lanes + 3 * ld)};
}
INLINE vf times_fours(vf x, four_lanes w) {
  return (FOURS(x, 0) * w.w0 + FOURS(x, 1) * w.w1) + (FOURS(x, 2) * w.w2 + FOURS(x, 3) * w.w3);
}

/* any block size; `turned` multiplies by the transposed matrix; y += */
LOCAL void block_diagonal_any(int64_t n, int64_t I, int64_t S, const float *x, int64_t ldx,
                               const float *blocks, int turned, float *y, int64_t ldy) {
  for (int64_t g = 0; g < I; g += S, blocks += S * S) {
    if (S % VW == 0 && !turned) {
      product(n, S, S, (strided){x + g, ldx, 1}, WHOLE, blocks, S, y + g, ldy, y + g, ldy, 1);
      continue;
    }
    for (int64_t r = 0; r < n; r++)
      for (int64_t i = 0; i < S; i++) {
        const float *w = blocks + i * S;
        if (turned) y[r * ldy + g + i] += dot(S, x + r * ldx + g, w);
        else
          for (int64_t o = 0; o < S; o++) y[r * ldy + g + o] += x[r * ldx + g + i] * w[o];
      }
  }
}

/* dblocks += x^T dy, block by block */
LOCAL void block_diagonal_any_weights(int64_t n, int64_t I, int64_t S, const float *x, int64_t ldx,
                                       const float *dy, int64_t ldy, float *dblocks) {
  for (int64_t g = 0; g < I; g += S, dblocks += S * S) {
    if (S % VW == 0) {
      product(S, S, n, (strided){x + g, 1, ldx}, WHOLE, dy + g, ldy, dblocks, S, dblocks, S, 1);
      continue;
    }
    for (int64_t r = 0; r < n; r++)
      for (int64_t i = 0; i < S; i++)
        for (int64_t o = 0; o < S; o++)
          dblocks[i * S + o] += x[r * ldx + g + i] * dy[r * ldy + g + o];
  }
}
