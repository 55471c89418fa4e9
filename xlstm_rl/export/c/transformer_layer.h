/* One step of a transformer's layer over a window of steps, its keys and values the state. */
#pragma once
#include "gated_linear.h"

typedef struct {
  int64_t D, H, K, past, F; /* past: steps that are seen beside the present one */
  matrix qkv, out, up, down;
  const float *attention_norm, *norm, *up_bias, *down_bias;
  const float *cosine, *sine; /* [past + 1, K / 2], by distance: the angles between two steps */
  matrix from_read[2], from_stream[2], from_reset[2]; /* of both joins; no values: they add */
  const float *gate_bias[2];
} transformer_layer;

/* x [D] = joined with y [D]. work: 6 D floats. */
LOCAL void join(const transformer_layer *l, int number, const float *y, float *x, float *work) {
  const int64_t D = l->D;
  float *read = work, *stream = read + 3 * D, *z = stream + D;
  if (!l->from_read[number].values) {
    add(D, y, x);
    return;
  }
  rows_of(l->from_read[number], 0, 3 * D, D, y, 0, read);
  rows_of(l->from_stream[number], 0, 2 * D, D, x, 0, stream);
  add(2 * D, read, stream);
  for (int64_t i = 0; i < D; i++) z[i] -= l->gate_bias[number][i];
  apply_sigmoid(2 * D, stream);
  multiply(D, x, stream);
  rows_of(l->from_reset[number], 0, D, D, stream, 0, read);
  add(D, read, read + 2 * D);
  apply_unit(D, UNIT_TANH, read + 2 * D);
  for (int64_t i = 0; i < D; i++) x[i] = (1 - z[i]) * x[i] + z[i] * read[2 * D + i];
}

/* What a head reads: scores of the steps that are there, their softmax, the sum of their values.
   keys and values of a step lie `apart` floats behind those of the one before. */
LOCAL void read_head(const transformer_layer *l, const float *q, const float *k, const float *v,
                     const float *keys, const float *values, const float *filled, int64_t apart,
                     float *turned, float *scores, float *o) {
  const int64_t K = l->K, half = K / 2, past = l->past;
  const float scale = 1 / sqrtf((float)K);
  float most = -INFINITY, sum = 0;
  for (int64_t j = 0; j <= past; j++) {
    if (j < past && !(filled[j] > 0)) continue;
    const float *c = l->cosine + (past - j) * half, *s = l->sine + (past - j) * half;
    for (int64_t i = 0; i < half; i++) {
      turned[i] = q[i] * c[i] - q[half + i] * s[i];
      turned[half + i] = q[half + i] * c[i] + q[i] * s[i];
    }
    scores[j] = scale * dot(K, turned, j < past ? keys + j * apart : k);
    if (!(scores[j] <= most)) most = scores[j];
  }
  memset(o, 0, (size_t)K * sizeof(float));
  for (int64_t j = 0; j <= past; j++) {
    if (j < past && !(filled[j] > 0)) continue;
    const float weight = expf(scores[j] - most), *own = j < past ? values + j * apart : v;
    sum += weight;
    for (int64_t i = 0; i < K; i++) o[i] += weight * own[i];
  }
  for (int64_t i = 0; i < K; i++) o[i] /= sum;
}

/* x [D] becomes the layer's output. state: keys [past, H, K], values, filled [past].
   work: 8 D + 4 H K + K + past + 1 + F floats. */
LOCAL void transformer_layer_step(const transformer_layer *l, float *state, float *x, float *work) {
  const int64_t D = l->D, H = l->H, K = l->K, I = H * K, past = l->past, F = l->F;
  float *normed = work, *y = normed + D, *more = y + D, *q = more + 6 * D, *o = q + 3 * I;
  float *turned = o + I, *scores = turned + K, *hidden = scores + past + 1;
  float *keys = state, *values = keys + past * I, *filled = values + past * I;
  norm(D, l->attention_norm, x, normed);
  rows_of(l->qkv, 0, 3 * I, D, normed, 0, q);
  for (int64_t h = 0; h < I; h += K)
    read_head(l, q + h, q + I + h, q + 2 * I + h, keys + h, values + h, filled, I, turned, scores,
              o + h);
  memmove(keys, keys + I, (size_t)((past - 1) * I) * sizeof(float));
  memmove(values, values + I, (size_t)((past - 1) * I) * sizeof(float));
  memmove(filled, filled + 1, (size_t)(past - 1) * sizeof(float));
  memcpy(keys + (past - 1) * I, q + I, (size_t)I * sizeof(float));
  memcpy(values + (past - 1) * I, q + 2 * I, (size_t)I * sizeof(float));
  filled[past - 1] = 1;
  rows_of(l->out, 0, D, I, o, 0, y);
  join(l, 0, y, x, more);
  norm(D, l->norm, x, normed);
  rows_of(l->up, 0, F, D, normed, l->up_bias, hidden);
  FOR_VECTORS(i, F, left) {
    vf slope;
    store_left(hidden + i, activate(GELU, load_left(hidden + i, left), &slope), left);
  }
  rows_of(l->down, 0, D, F, hidden, l->down_bias, y);
  join(l, 1, y, x, more);
}
