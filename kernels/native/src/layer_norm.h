/* Layer normalisation over the last axis, forward and backward, of rows of any length. */
#pragma once
#include "vector.h"

#define NORM_EPS 1e-5f

/* mean and 1 / deviation of one row */
INLINE void row_moments(int64_t n, const float *x, float *mean, float *inverse) {
  vf sum = broadcast(0), squares = broadcast(0);
  FOR_VECTORS(i, n, left) sum += load_left(x + i, left);
  const float m = sum_lanes(sum) / (float)n;
  FOR_VECTORS(i, n, left) {
    vf d = load_left(x + i, left) - broadcast(m);
    if (VW > 1 && left < VW) d = load_part((float *)&d, left); /* lanes past the end hold -m */
    squares += d * d;
  }
  *mean = m;
  *inverse = 1.0f / sqrtf(sum_lanes(squares) / (float)n + NORM_EPS);
}

/* y = (x - mean) / deviation * weight */
INLINE void normalise_row(int64_t n, const float *x, const float *weight, float mean, float inverse,
                          float *y) {
  const vf m = broadcast(mean), s = broadcast(inverse);
  FOR_VECTORS(i, n, left)
    store_left(y + i, (load_left(x + i, left) - m) * s * load_left(weight + i, left), left);
}

/* dx += the gradient through the norm of dy; dweight += dy times the normed x */
INLINE void normalise_row_backward(int64_t n, const float *x, const float *weight, float mean,
                                   float inverse, const float *dy, float *dx, float *dweight) {
  if (n == 1) return; /* a number is its own mean: what is left would be rounding, times 1 / sqrt(eps) */
  const vf m = broadcast(mean), s = broadcast(inverse);
  vf sum = broadcast(0), along = broadcast(0);
  FOR_VECTORS(i, n, left) {
    const vf normed = (load_left(x + i, left) - m) * s, g = load_left(dy + i, left);
    const vf d = g * load_left(weight + i, left); /* 0 past the end, as g is */
    store_left(dweight + i, load_left(dweight + i, left) + g * normed, left);
    sum += d;
    along += d * normed;
  }
  const vf a = broadcast(sum_lanes(sum) / (float)n), b = broadcast(sum_lanes(along) / (float)n);
  FOR_VECTORS(i, n, left) {
    const vf normed = (load_left(x + i, left) - m) * s;
    const vf d = load_left(dy + i, left) * load_left(weight + i, left);
    store_left(dx + i, load_left(dx + i, left) + (d - a - normed * b) * s, left);
  }
}
