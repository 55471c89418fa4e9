/* Activations of a gated feed-forward, with their slopes. What is not a number stays one. */
#pragma once
#include "vector.h"

/* in the order of ACTIVATIONS in slstm_block.py */
enum { GELU, RELU, RELU_SQUARED, SIGMOID, SWISH, SELU };

/* erf to a few 1e-7 (a rational in x, as Eigen has it) */
INLINE vf verf(vf x) {
  x = vmin(broadcast(4), vmax(broadcast(-4), x));
  const vf z = x * x;
  vf p = broadcast(-2.72614225801306e-10f);
  p = p * z + broadcast(2.77068142495902e-08f);
  p = p * z + broadcast(-2.10102402082508e-06f);
  p = p * z + broadcast(-5.69250639462346e-05f);
  p = p * z + broadcast(-7.34990630326855e-04f);
  p = p * z + broadcast(-2.95459980854025e-03f);
  p = p * z + broadcast(-1.60960333262415e-02f);
  vf q = broadcast(-1.45660718464996e-05f);
  q = q * z + broadcast(-2.13374055278905e-04f);
  q = q * z + broadcast(-1.68282697438203e-03f);
  q = q * z + broadcast(-7.37332916720468e-03f);
  q = q * z + broadcast(-1.42647390514189e-02f);
  return x * p / q;
}

INLINE vf activate(int64_t kind, vf x, vf *slope) {
  const vf zero = broadcast(0), one = broadcast(1);
  const vi low = MASK(x <= zero);
  if (kind == GELU) {
    const vf below = broadcast(0.5f) * (one + verf(x * broadcast(0.70710678118f)));
    *slope = below + x * broadcast(0.3989422804f) * vexp(broadcast(-0.5f) * x * x);
    return x * below;
  }
  if (kind == RELU || kind == RELU_SQUARED) {
    const vf y = pick(low, zero, x);
    *slope = kind == RELU ? pick(low, zero, one) : y + y;
    return kind == RELU ? y : y * y;
  }
  if (kind == SELU) {
    const vf scale = broadcast(1.0507009873554805f), alpha = broadcast(1.0507009873554805f * 1.6732632423543772f);
    const vf e = vexp(x);
    *slope = pick(low, alpha * e, scale);
    return pick(low, alpha * (e - one), scale * x);
  }
  const vf s = vsigmoid(x);
  *slope = kind == SIGMOID ? s * (one - s) : s * (one + x * (one - s));
  return kind == SIGMOID ? s : x * s;
}
