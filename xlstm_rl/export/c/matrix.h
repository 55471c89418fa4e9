/* Products with the matrices of the weights file: floats, or bytes with a scale for each row. */
#pragma once
#include "one_row.h"

typedef struct {
  const void *values;
  const float *scales; /* [rows]; null: the values are floats */
} matrix;

/* VW bytes as floats; compilers find the instructions for it only by their names */
#if VW == 16
INLINE vf load_bytes(const int8_t *p) {
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
#elif VW == 8
INLINE vf load_bytes(const int8_t *p) {
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
#elif VW == 4 && defined(__SSE2__)
#include <emmintrin.h>
INLINE vf load_bytes(const int8_t *p) {
  int32_t four;
  memcpy(&four, p, sizeof four);
  const __m128i bytes = _mm_cvtsi32_si128(four), pairs = _mm_unpacklo_epi8(bytes, bytes);
  return (vf)_mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(pairs, pairs), 24));
}
#elif VW == 4
typedef int8_t four_bytes __attribute__((vector_size(4)));
INLINE vf load_bytes(const int8_t *p) {
  four_bytes bytes;
  memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, vf);
}
#else
INLINE vf load_bytes(const int8_t *p) { return (float)*p; }
#endif

INLINE float dot_bytes(int64_t n, const int8_t *w, const float *x) {
  vf sum = broadcast(0);
  float rest = 0;
  const int64_t whole = n / VW * VW;
  for (int64_t i = 0; i < whole; i += VW) sum += load_bytes(w + i) * load(x + i);
  for (int64_t i = whole; i < n; i++) rest += (float)w[i] * x[i];
  return sum_lanes(sum) + rest;
}

/* y [M] = scales (A [M, K] x) + bias, A of bytes; four rows at once, as matvec has it */
LOCAL void matvec_bytes(int64_t M, int64_t K, const int8_t *bytes, const float *scales,
                        const float *x, const float *bias, float *y) {
  const int64_t fours = M / 4 * 4, whole = K / VW * VW;
  for (int64_t m = 0; m < fours; m += 4) {
    const int8_t *w = bytes + m * K;
    vf a = broadcast(0), b = a, c = a, d = a;
    for (int64_t k = 0; k < whole; k += VW) {
      const vf e = load(x + k);
      a += load_bytes(w + k) * e;
      b += load_bytes(w + K + k) * e;
      c += load_bytes(w + 2 * K + k) * e;
      d += load_bytes(w + 3 * K + k) * e;
    }
    float sums[4] = {sum_lanes(a), sum_lanes(b), sum_lanes(c), sum_lanes(d)};
    for (int64_t r = 0; r < 4; r++) {
      for (int64_t k = whole; k < K; k++) sums[r] += (float)w[r * K + k] * x[k];
      y[m + r] = scales[m + r] * sums[r] + (bias ? bias[m + r] : 0);
    }
  }
  for (int64_t m = fours; m < M; m++)
    y[m] = scales[m] * dot_bytes(K, bytes + m * K, x) + (bias ? bias[m] : 0);
}

/* y [M] = A [M, K] x + bias; bias may be null. `first` is the row of the matrix where A begins. */
LOCAL void rows_of(matrix a, int64_t first, int64_t M, int64_t K, const float *x, const float *bias,
                   float *y) {
  if (a.scales)
    matvec_bytes(M, K, (const int8_t *)a.values + first * K, a.scales + first, x, bias, y);
  else
    matvec(M, K, (const float *)a.values + first * K, x, bias, y);
}

/* y [S] = A [S, S] x for blocks that are too short for vectors */
LOCAL void short_rows(matrix a, int64_t first, int64_t S, const float *x, float *y) {
  for (int64_t r = 0; r < S; r++) {
    float sum = 0;
    if (a.scales) {
      const int8_t *w = (const int8_t *)a.values + (first + r) * S;
      for (int64_t k = 0; k < S; k++) sum += (float)w[k] * x[k];
      y[r] = sum * a.scales[first + r];
    } else {
      const float *w = (const float *)a.values + (first + r) * S;
      for (int64_t k = 0; k < S; k++) sum += w[k] * x[k];
      y[r] = sum;
    }
  }
}

/* y [G S] = x [G S] times blocks of S by S on a diagonal; rows of A are outputs. `first`: its block. */
LOCAL void diagonal(matrix a, int64_t first, int64_t G, int64_t S, const float *x, const float *bias,
                    float *y) {
  for (int64_t g = 0; g < G; g++)
    if (S > 4) rows_of(a, (first + g) * S, S, S, x + g * S, 0, y + g * S);
    else short_rows(a, (first + g) * S, S, x + g * S, y + g * S);
  for (int64_t i = 0; bias && i < G * S; i++) y[i] += bias[i];
}
