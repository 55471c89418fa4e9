/* One step of a layer of an LSTM or a GRU, with torch's weights. */
#pragma once
#include "matrix.h"
#include "recurrent_cell.h"

/* x [D] becomes h; h and c [D] become those after the step. Gates i, f, g, o.
   work: 13 D floats. */
LOCAL void lstm_layer_step(int64_t D, matrix of_x, const float *bias_x, matrix of_h,
                           const float *bias_h, float *h, float *c, float *x, float *work) {
  float *raw = work, *more = raw + 4 * D, *kept = more + 4 * D;
  rows_of(of_x, 0, 4 * D, D, x, bias_x, raw);
  rows_of(of_h, 0, 4 * D, D, h, bias_h, more);
  for (int64_t i = 0; i < 4 * D; i++) raw[i] += more[i];
  lstm_row(D, raw, more, c, h, kept);
  memcpy(x, h, (size_t)D * sizeof(float));
}

/* The same of a GRU; gates r, z, n; work: 7 D floats. */
LOCAL void gru_layer_step(int64_t D, matrix of_x, const float *bias_x, matrix of_h,
                          const float *bias_h, float *h, float *x, float *work) {
  float *gates = work, *more = gates + 4 * D;
  rows_of(of_x, 0, 3 * D, D, x, bias_x, gates);
  rows_of(of_h, 0, 3 * D, D, h, bias_h, more);
  gru_row(D, gates, more, h);
  memcpy(x, h, (size_t)D * sizeof(float));
}
