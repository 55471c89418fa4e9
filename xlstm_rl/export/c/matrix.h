/* Products with the matrices of the weights file: floats, or bytes with a scale for each row. */
#pragma once
#include "one_row.h"

typedef struct {
  const void *values;
  const float *scales; /* [rows]; null: the values are floats */
} matrix;

#if VW > 1
typedef int8_t bytes_of_vector __attribute__((vector_size(VW)));
INLINE vf load_bytes(const int8_t *p) {
  bytes_of_vector bytes;
  memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, vi), vf);
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

/* y [M] = A [M, K] x + bias; bias may be null. `first` is the row of the matrix where A begins. */
LOCAL void rows_of(matrix a, int64_t first, int64_t M, int64_t K, const float *x, const float *bias,
                   float *y) {
  if (!a.scales) {
    matvec(M, K, (const float *)a.values + first * K, x, bias, y);
    return;
  }
  const int8_t *w = (const int8_t *)a.values + first * K;
  for (int64_t m = 0; m < M; m++)
    y[m] = a.scales[first + m] * dot_bytes(K, w + m * K, x) + (bias ? bias[m] : 0);
}

/* y [G S] = x [G S] times blocks of S by S on a diagonal; rows of A are outputs. `first`: its block. */
LOCAL void diagonal(matrix a, int64_t first, int64_t G, int64_t S, const float *x, const float *bias,
                    float *y) {
  if (a.scales || S > 4) {
    for (int64_t g = 0; g < G; g++)
      rows_of(a, (first + g) * S, S, S, x + g * S, bias ? bias + g * S : 0, y + g * S);
    return;
  }
  const float *w = (const float *)a.values + first * S * S; /* too short for vectors */
  for (int64_t m = 0; m < G * S; m++) {
    float sum = bias ? bias[m] : 0;
    for (int64_t k = 0; k < S; k++) sum += w[m * S + k] * x[m / S * S + k];
    y[m] = sum;
  }
}
