/* Vectors of floats in the extensions that GCC and Clang share, and what is computed on them.

   VW is the width: 16 floats for x86-64-v4, 8 for v3, 4 for NEON and the baseline. One source
   serves all; only maxima and roots name an instruction, because no compiler finds it by itself.
   Where there are no such vectors a vector is one float, and this is plain C99: exported policies
   include this file too (xlstm_rl/export/c). So a mask is made by MASK, bits are read by BITS and
   FLOATS.

   What is not a number has to stay one. In vmax(a, b) and vmin(a, b) a NaN in b survives, one in a
   may not: constants come first.

   Compile with -ffp-contract=fast: a * b + c is one instruction, in the products above all. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__GNUC__) || defined(XL_PLAIN)
#define VW 1
#elif defined(__AVX512F__)
#define VW 16
#elif defined(__AVX2__)
#define VW 8
#elif defined(__SSE2__) || defined(__ARM_NEON) || defined(__wasm_simd128__)
#define VW 4
#else
#define VW 1
#endif
#if VW >= 8
#include <immintrin.h>
#elif VW == 4 && defined(__ARM_NEON)
#include <arm_neon.h>
#endif

/* LOCAL: a function of a header that not every file calls */
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline, unused))
#define LOCAL static __attribute__((unused))
#define ALIGNED __attribute__((aligned(64)))
#else
#define INLINE static inline
#define LOCAL static
#define ALIGNED
#endif
#define ROUND_UP(n, multiple) (((n) + (multiple) - 1) / (multiple) * (multiple))

#if VW > 1
typedef float vf __attribute__((vector_size(VW * 4)));
typedef int32_t vi_lane;
typedef vi_lane vi __attribute__((vector_size(VW * 4)));
typedef float vf_anywhere __attribute__((vector_size(VW * 4), aligned(4), may_alias));
#define MASK(condition) ((vi)(condition)) /* -1 where it holds, else 0 */
#define BITS(x) ((vi)(x))
#define FLOATS(bits) ((vf)(bits))
#else
typedef float vf, vf_anywhere;
typedef uint32_t vi_lane, vi; /* sums wrap around, as those of vectors do */
#define MASK(condition) ((vi)0 - (vi)(condition))
INLINE vi BITS(vf x) {
  vi bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
INLINE vf FLOATS(vi bits) {
  vf x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
#endif

INLINE vf load(const float *p) { return *(const vf_anywhere *)p; }
INLINE void store(float *p, vf x) { *(vf_anywhere *)p = x; }

#if VW == 16
#define EACH_LANE(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
#define LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif VW == 8
#define EACH_LANE(x) {x, x, x, x, x, x, x, x}
#define LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7}
#elif VW == 4
#define EACH_LANE(x) {x, x, x, x}
#define LANE_NUMBERS {0, 1, 2, 3}
#else
#define EACH_LANE(x) {x}
#endif
INLINE vf broadcast(float x) { return (vf)EACH_LANE(x); }
INLINE vi broadcast_int(int32_t x) { return (vi)EACH_LANE((vi_lane)x); }

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
INLINE vf load_left(const float *p, int64_t left) {
  return VW == 1 || left >= VW ? load(p) : load_part(p, left);
}
INLINE void store_left(float *p, vf x, int64_t left) {
  if (VW == 1 || left >= VW) store(p, x);
  else store_part(p, x, left);
}

/* yes where the lane of `mask` is -1, no where it is 0 */
INLINE vf pick(vi mask, vf yes, vf no) { return FLOATS((BITS(yes) & mask) | (BITS(no) & ~mask)); }
INLINE vf keep_where(vi mask, vf x) { return FLOATS(BITS(x) & mask); }

#if VW == 16
INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif VW == 8
INLINE vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf vmin(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#elif VW == 4 && defined(__ARM_NEON)
INLINE vf vmax(vf a, vf b) { return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE vf vmin(vf a, vf b) { return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b); }
#else
INLINE vf vmax(vf a, vf b) { return pick(MASK(a > b), a, b); }
INLINE vf vmin(vf a, vf b) { return pick(MASK(a < b), a, b); }
#endif
#if VW == 16
INLINE vf vsqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
#elif VW == 8
INLINE vf vsqrt(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
#elif VW == 4 && defined(__aarch64__)
INLINE vf vsqrt(vf x) { return (vf)vsqrtq_f32((float32x4_t)x); }
#elif VW == 4
INLINE vf vsqrt(vf x) { return (vf){sqrtf(x[0]), sqrtf(x[1]), sqrtf(x[2]), sqrtf(x[3])}; }
#else
INLINE vf vsqrt(vf x) { return sqrtf(x); }
#endif
INLINE vf vabs(vf x) { return FLOATS(BITS(x) & broadcast_int(0x7fffffff)); }

#if VW == 1
INLINE float sum_lanes(vf x) { return x; }
#else
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
#endif

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
  vi exponent = (BITS(shifted) - BITS(magic) + broadcast_int(127)) << 23;
  return p * FLOATS(exponent);
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
  vi sign = BITS(x) & broadcast_int(INT32_MIN);
  far = FLOATS(BITS(far) | sign);
  return pick(MASK(a < broadcast(0.625f)), near, far);
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
