/* Matrices of floats turned. */
#pragma once
#include "vector.h"

/* A square of floats transposed in registers: neighbours change places at distance 1, 2, 4. */
#if VW == 4
#define TRANSPOSE_TILE 4
INLINE void transpose_tile(const float *s, int64_t lds, float *d, int64_t ldd) {
  vf a = load(s), b = load(s + lds), c = load(s + 2 * lds), e = load(s + 3 * lds);
  vf ac0 = SHUFFLE(a, b, 0, 4, 1, 5), ac1 = SHUFFLE(a, b, 2, 6, 3, 7);
  vf ce0 = SHUFFLE(c, e, 0, 4, 1, 5), ce1 = SHUFFLE(c, e, 2, 6, 3, 7);
  store(d, SHUFFLE(ac0, ce0, 0, 1, 4, 5));
  store(d + ldd, SHUFFLE(ac0, ce0, 2, 3, 6, 7));
  store(d + 2 * ldd, SHUFFLE(ac1, ce1, 0, 1, 4, 5));
  store(d + 3 * ldd, SHUFFLE(ac1, ce1, 2, 3, 6, 7));
}
#else
/* eight lanes for 16-wide vectors too: matrices here are often only 16 or 32 on a side */
#define TRANSPOSE_TILE 8
typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef float v8_anywhere __attribute__((vector_size(32), aligned(4), may_alias));
#if defined(__clang__)
#define SHUFFLE8(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLE8(x, y, ...) __builtin_shuffle(x, y, (v8i){__VA_ARGS__})
#endif
#define EVEN1(x, y) SHUFFLE8(x, y, 0, 8, 1, 9, 4, 12, 5, 13)
#define ODD1(x, y) SHUFFLE8(x, y, 2, 10, 3, 11, 6, 14, 7, 15)
#define EVEN2(x, y) SHUFFLE8(x, y, 0, 1, 8, 9, 4, 5, 12, 13)
#define ODD2(x, y) SHUFFLE8(x, y, 2, 3, 10, 11, 6, 7, 14, 15)
#define EVEN4(x, y) SHUFFLE8(x, y, 0, 1, 2, 3, 8, 9, 10, 11)
#define ODD4(x, y) SHUFFLE8(x, y, 4, 5, 6, 7, 12, 13, 14, 15)
INLINE void transpose_tile(const float *s, int64_t lds, float *d, int64_t ldd) {
#define ROW8(r) (*(const v8_anywhere *)(s + (r) * lds))
#define PUT8(r, x) (*(v8_anywhere *)(d + (r) * ldd) = (x))
  v8 a0 = EVEN1(ROW8(0), ROW8(1)), a1 = ODD1(ROW8(0), ROW8(1));
  v8 b0 = EVEN1(ROW8(2), ROW8(3)), b1 = ODD1(ROW8(2), ROW8(3));
  v8 c0 = EVEN1(ROW8(4), ROW8(5)), c1 = ODD1(ROW8(4), ROW8(5));
  v8 e0 = EVEN1(ROW8(6), ROW8(7)), e1 = ODD1(ROW8(6), ROW8(7));
  v8 p0 = EVEN2(a0, b0), p1 = ODD2(a0, b0), p2 = EVEN2(a1, b1), p3 = ODD2(a1, b1);
  v8 q0 = EVEN2(c0, e0), q1 = ODD2(c0, e0), q2 = EVEN2(c1, e1), q3 = ODD2(c1, e1);
  PUT8(0, EVEN4(p0, q0)), PUT8(4, ODD4(p0, q0));
  PUT8(1, EVEN4(p1, q1)), PUT8(5, ODD4(p1, q1));
  PUT8(2, EVEN4(p2, q2)), PUT8(6, ODD4(p2, q2));
  PUT8(3, EVEN4(p3, q3)), PUT8(7, ODD4(p3, q3));
#undef ROW8
#undef PUT8
}
#endif

/* d [n, m] = s [m, n] turned, of any size */
INLINE void transpose(int64_t m, int64_t n, const float *s, int64_t lds, float *d, int64_t ldd) {
  const int64_t side = TRANSPOSE_TILE, mt = m / side * side, nt = n / side * side;
  for (int64_t i = 0; i < mt; i += side) {
    for (int64_t j = 0; j < nt; j += side) transpose_tile(s + i * lds + j, lds, d + j * ldd + i, ldd);
    for (int64_t j = nt; j < n; j++)
      for (int64_t r = i; r < i + side; r++) d[j * ldd + r] = s[r * lds + j];
  }
  for (int64_t i = mt; i < m; i++)
    for (int64_t j = 0; j < n; j++) d[j * ldd + i] = s[i * lds + j];
}
