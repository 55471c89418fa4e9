/* Vectors of floats in the extensions that GCC and Clang share, and what is computed on them.

   VW is the width: 16 floats for x86-64-v4, 8 for v3, 4 for NEON and the baseline. One source
   serves all; only the maxima name an instruction, because no compiler finds it by itself.

   What is not a number has to stay one. In vmax(a, b) and vmin(a, b) a NaN in b survives, one in a
   may not: constants come first.

   Compile with -ffp-contract=fast: a * b + c is one instruction, in the products above all. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define VW 16
#elif defined(__AVX2__)
#define VW 8
#else
#define VW 4
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define LOCAL static __attribute__((unused)) /* a function of a header that not every file calls */
#define ALIGNED __attribute__((aligned(64)))
#define ROUND_UP(n, multiple) (((n) + (multiple) - 1) / (multiple) * (multiple))

typedef float vf __attribute__((vector_size(VW * 4)));
typedef int32_t vi __attribute__((vector_size(VW * 4)));
typedef float vf_anywhere __attribute__((vector_size(VW * 4), aligned(4), may_alias));

INLINE vf load(const float *p) { return *(const vf_anywhere *)p; }
INLINE void store(float *p, vf x) { *(vf_anywhere *)p = x; }

#if VW == 16
#define EACH_LANE(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
#define LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif VW == 8
#define EACH_LANE(x) {x, x, x, x, x, x, x, x}
#define LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7}
#else
#define EACH_LANE(x) {x, x, x, x}
#define LANE_NUMBERS {0, 1, 2, 3}
#endif
INLINE vf broadcast(float x) { return (vf)EACH_LANE(x); }
INLINE vi broadcast_int(int32_t x) { return (vi)EACH_LANE(x); }

/* Lanes of x and y by their numbers; those of y begin at VW. */
#if defined(__clang__)
#define SHUFFLE(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLE(x, y, ...) __builtin_shuffle(x, y, (vi){__VA_ARGS__})
#endif

/* The first n of VW floats, the others 0: the end of a row whose length is no multiple of VW. */
INLINE vf load_part(const float *p, int64_t n) {
  float lanes[VW] ALIGNED = {0};
  memcpy(lanes, p, (size_t)n * sizeof(float));
  return load(lanes);
}
INLINE void store_part(float *p, vf x, int64_t n) {
  float lanes[VW] ALIGNED;
  store(lanes, x);
  memcpy(p, lanes, (size_t)n * sizeof(float));
}

/* For every vector of a row of n floats: i is where it begins, `left` how many floats are its own. */
#define FOR_VECTORS(i, n, left) \
  for (int64_t i = 0, left; left = (n) - i, i < (n); i += VW)
INLINE vf load_left(const float *p, int64_t left) { return left >= VW ? load(p) : load_part(p, left); }
INLINE void store_left(float *p, vf x, int64_t left) {
  if (left >= VW) store(p, x);
  else store_part(p, x, left);
}

/* yes where the lane of `mask` is -1, no where it is 0 */
INLINE vf pick(vi mask, vf yes, vf no) { return (vf)(((vi)yes & mask) | ((vi)no & ~mask)); }
INLINE vf keep_where(vi mask, vf x) { return (vf)((vi)x & mask); }

#if defined(__AVX512F__)
INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
INLINE vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf vmin(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#elif defined(__ARM_NEON)
INLINE vf vmax(vf a, vf b) { return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE vf vmin(vf a, vf b) { return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b); }
#else
INLINE vf vmax(vf a, vf b) { return pick((vi)(a > b), a, b); }
INLINE vf vmin(vf a, vf b) { return pick((vi)(a < b), a, b); }
#endif
INLINE vf vabs(vf x) { return (vf)((vi)x & broadcast_int(0x7fffffff)); }

INLINE float sum_lanes(vf x) {
  float lanes[VW] ALIGNED;
#if VW == 16
  x += SHUFFLE(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  x += SHUFFLE(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
#elif VW == 8
  x += SHUFFLE(x, x, 4, 5, 6, 7, 0, 1, 2, 3);
#endif
  store(lanes, x);
  return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

/* The largest x for which neither exp(x) nor exp(-x) leaves the normal numbers. */
#define EXP_BOUND 87.0f

/* exp to 1e-7 of its value (Cephes), of arguments moved into the normal range. The power of two is
   a factor, not an addition to the exponent: so a NaN stays one. */
INLINE vf vexp(vf x) {
  x = vmin(broadcast(88.0f), vmax(broadcast(-87.3f), x));
  const vf magic = broadcast(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
  vf shifted = x * broadcast(1.44269504088896341f) + magic;
  vf power = shifted - magic;
  vf r = x - power * broadcast(0.693359375f);
  r = r - power * broadcast(-2.12194440e-4f);
  vf p = broadcast(1.9875691500e-4f);
  p = p * r + broadcast(1.3981999507e-3f);
  p = p * r + broadcast(8.3334519073e-3f);
  p = p * r + broadcast(4.1665795894e-2f);
  p = p * r + broadcast(1.6666665459e-1f);
  p = p * r + broadcast(5.0000001201e-1f);
  p = p * (r * r) + r + broadcast(1.0f);
  vi exponent = ((vi)shifted - (vi)magic + broadcast_int(127)) << 23;
  return p * (vf)exponent;
}
INLINE vf vsigmoid(vf x) { return broadcast(1.0f) / (broadcast(1.0f) + vexp(-x)); }

/* log(1 + e) for 0 <= e <= 1: the series of 2 artanh(e / (e + 2)) */
INLINE vf vlog1p_unit(vf e) {
  vf s = e / (e + broadcast(2.0f)), q = s * s;
  vf p = broadcast(2.0f / 17);
  p = p * q + broadcast(2.0f / 15);
  p = p * q + broadcast(2.0f / 13);
  p = p * q + broadcast(2.0f / 11);
  p = p * q + broadcast(2.0f / 9);
  p = p * q + broadcast(2.0f / 7);
  p = p * q + broadcast(2.0f / 5);
  p = p * q + broadcast(2.0f / 3);
  p = p * q + broadcast(2.0f);
  return p * s;
}
INLINE vf vlog_sigmoid(vf x) { return vmin(broadcast(0), x) - vlog1p_unit(vexp(-vabs(x))); }

/* tanh, near 0 by an odd polynomial (Cephes), so that small numbers keep their digits */
INLINE vf vtanh(vf x) {
  vf a = vabs(x), z = x * x;
  vf p = broadcast(-5.70498872745e-3f);
  p = p * z + broadcast(2.06390887954e-2f);
  p = p * z + broadcast(-5.37397155531e-2f);
  p = p * z + broadcast(1.33314422036e-1f);
  p = p * z + broadcast(-3.33332819422e-1f);
  vf near = p * z * x + x;
  vf far = broadcast(1.0f) - broadcast(2.0f) / (vexp(a + a) + broadcast(1.0f));
  vi sign = (vi)x & broadcast_int((int32_t)0x80000000);
  far = (vf)((vi)far | sign);
  return pick((vi)(a < broadcast(0.625f)), near, far);
}

INLINE float dot(int64_t n, const float *a, const float *b) {
  vf s = broadcast(0);
  FOR_VECTORS(i, n, left) s += load_left(a + i, left) * load_left(b + i, left);
  return sum_lanes(s);
}

/* Whether all n are finite: 0 times what is not is a NaN, and a sum keeps it. */
INLINE int all_finite(int64_t n, const float *x) {
  vf sum = broadcast(0);
  FOR_VECTORS(i, n, left) sum += load_left(x + i, left) * broadcast(0);
  return sum_lanes(sum) == 0;
}

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
