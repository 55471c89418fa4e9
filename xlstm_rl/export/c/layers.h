/* Linear layers, activations, norms, choices. */
#pragma once
#include "activation.h"
#include "layer_norm.h"
#include "matrix.h"

enum { UNIT_NONE, UNIT_TANH, UNIT_RELU, UNIT_SILU };

LOCAL void apply_unit(int64_t n, int unit, float *x) {
  FOR_VECTORS(i, n, left) {
    vf slope;
    const vf y = load_left(x + i, left);
    store_left(x + i,
               unit == UNIT_TANH   ? vtanh(y)
               : unit == UNIT_SILU ? activate(SWISH, y, &slope)
                                   : activate(RELU, y, &slope),
               left);
  }
}

/* y [outputs] = unit(A x + bias) */
LOCAL void linear(int64_t inputs, int64_t outputs, matrix a, const float *bias, int unit,
                  const float *x, float *y) {
  rows_of(a, 0, outputs, inputs, x, bias, y);
  if (unit != UNIT_NONE) apply_unit(outputs, unit, y);
}

/* y = the norm of x times weight; y may be x */
LOCAL void norm(int64_t n, const float *weight, const float *x, float *y) {
  float mean, inverse;
  row_moments(n, x, &mean, &inverse);
  normalise_row(n, x, weight, mean, inverse, y);
}

LOCAL void add(int64_t n, const float *x, float *to) {
  for (int64_t i = 0; i < n; i++) to[i] += x[i];
}

/* The first largest of n numbers; what is not a number counts as the largest. */
LOCAL int64_t largest(int64_t n, const float *x) {
  int64_t best = 0;
  for (int64_t i = 0; i < n; i++) {
    if (isnan(x[i])) return i;
    if (x[i] > x[best]) best = i;
  }
  return best;
}

/* What is not a number stays one. */
LOCAL float clipped(float x, float low, float high) { return x < low ? low : x > high ? high : x; }
LOCAL double clipped_wide(double x, double low, double high) {
  return x < low ? low : x > high ? high : x;
}
