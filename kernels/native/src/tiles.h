/* Products of small matrices out of tiles that live in registers.

   A tile is R rows by one or two vectors of C = beta * Cin + A B. Its sums are *named* vector
   variables, and a number of A is broadcast by an initialiser: with an array of sums, or a
   broadcast out of a call, compilers leave the sums in memory (11 - 46 in place of 103 - 114
   GFLOP/s). Hence the macros of repeat.h.

   A is read by two strides, A[m, k] = a[m * row + k * col], so that it may be transposed; B and C
   are rows of vectors. Every element is summed over k in order, whatever the tile: results do not
   depend on how rows are cut. */
#pragma once
#include "repeat.h"
#include "transpose.h"
#include "vector.h"

#if VW == 8
#define TILE_ROWS 6 /* 12 sums, two vectors of B and one of A in 16 registers */
#else
#define TILE_ROWS 8 /* 16 sums of 32 registers */
#endif
#define TILE_COLUMNS (2 * VW)

#define TILE_ARGUMENTS                                                                     \
  int64_t K, const float *a, int64_t row, int64_t col, const float *b, int64_t ldb,        \
      float *c, int64_t ldc, const float *cin, int64_t ldi, float beta

/* two vectors wide */
#define ZERO_2(r) vf s##r = broadcast(0), t##r = broadcast(0);
#define READ_2(r) s##r = load(cin + r * ldi) * scale, t##r = load(cin + r * ldi + VW) * scale;
#define ADD_2(r)                                                  \
  {                                                               \
    const float e = a[r * row];                                   \
    const vf x = EACH_LANE(e);                                    \
    s##r += x * b0;                                               \
    t##r += x * b1;                                               \
  }
#define WRITE_2(r) store(c + r * ldc, s##r), store(c + r * ldc + VW, t##r);
/* one vector wide */
#define ZERO_1(r) vf s##r = broadcast(0);
#define READ_1(r) s##r = load(cin + r * ldi) * scale;
#define ADD_1(r)                                                  \
  {                                                               \
    const float e = a[r * row];                                   \
    const vf x = EACH_LANE(e);                                    \
    s##r += x * b0;                                               \
  }
#define WRITE_1(r) store(c + r * ldc, s##r);

#define DEFINE_TILE(R)                                        \
  INLINE void tile_##R##x2(TILE_ARGUMENTS) {                  \
    const vf scale = broadcast(beta);                         \
    ROWS_##R(ZERO_2)                                          \
    if (cin) { ROWS_##R(READ_2) }                             \
    for (int64_t k = 0; k < K; k++, a += col, b += ldb) {     \
      const vf b0 = load(b), b1 = load(b + VW);               \
      ROWS_##R(ADD_2)                                         \
    }                                                         \
    ROWS_##R(WRITE_2)                                         \
  }                                                           \
  INLINE void tile_##R##x1(TILE_ARGUMENTS) {                  \
    const vf scale = broadcast(beta);                         \
    ROWS_##R(ZERO_1)                                          \
    if (cin) { ROWS_##R(READ_1) }                             \
    for (int64_t k = 0; k < K; k++, a += col, b += ldb) {     \
      const vf b0 = load(b);                                  \
      ROWS_##R(ADD_1)                                         \
    }                                                         \
    ROWS_##R(WRITE_1)                                         \
  }
DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(4)
DEFINE_TILE(8) /* by two vectors only where there are 32 registers */
#if TILE_ROWS == 6
DEFINE_TILE(6)
#define TILE_LARGE_x2 tile_6x2
#else
#define TILE_LARGE_x2 tile_8x2
#endif

/* Which columns of A a row reads, for the triangles of a causal chunk. */
enum { WHOLE, LOWER /* k <= m */, UPPER /* k >= m */ };

typedef struct {
  const float *p;
  int64_t row, col;
} strided; /* the left factor */

#define PRODUCT_TILE(R, x)                                                                  \
  for (; m + R <= M; m += R) {                                                              \
    const int64_t from = part == UPPER ? m : 0, to = part == LOWER && m + R < K ? m + R : K; \
    tile_##R##x(to - from, A.p + m * A.row + from * A.col, A.row, A.col, B + from * ldb + n, ldb, \
                C + m * ldc + n, ldc, Cin ? Cin + m * ldi + n : 0, ldi, beta);              \
  }

/* A tile of a triangle reads a square of this side on the diagonal: zeros have to stand there. */
#define TRIANGLE_SIDE (VW > 8 ? VW : 8)

/* C [M, N] = beta Cin + A B; N is a multiple of VW, M and K are any. */
LOCAL void product(int64_t M, int64_t N, int64_t K, strided A, int part, const float *B, int64_t ldb,
                    float *C, int64_t ldc, const float *Cin, int64_t ldi, float beta) {
  int64_t n = 0;
  for (; n + TILE_COLUMNS <= N; n += TILE_COLUMNS) {
    int64_t m = 0;
#if TILE_ROWS == 8
    PRODUCT_TILE(8, x2)
#endif
    PRODUCT_TILE(4, x2) /* not 6: chunks are 32 long, and 8 sums keep both multipliers busy */
    PRODUCT_TILE(2, x2)
    PRODUCT_TILE(1, x2)
  }
  for (; n < N; n += VW) {
    int64_t m = 0;
    PRODUCT_TILE(8, x1)
    PRODUCT_TILE(4, x1)
    PRODUCT_TILE(2, x1)
    PRODUCT_TILE(1, x1)
  }
}
