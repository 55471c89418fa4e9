/* One step of a minGRU block (Feng et al. 2024, arXiv:2410.01201). */
#pragma once
#include "gated_linear.h"

/* x [D] becomes the block's output, h [I] its state. work: D + 2 I floats. */
LOCAL void min_gru_step(int64_t D, int64_t I, const float *weight, matrix gates, const float *gate_bias,
                        matrix out, const float *out_bias, float *h, float *x, float *work) {
  float *normed = work, *z = normed + D, *candidate = z + I;
  norm(D, weight, x, normed);
  rows_of(gates, 0, 2 * I, D, normed, gate_bias, z);
  apply_sigmoid(I, z);
  for (int64_t i = 0; i < I; i++) h[i] = (1 - z[i]) * h[i] + z[i] * candidate[i];
  rows_of(out, 0, D, I, h, out_bias, normed);
  add(D, normed, x);
}
