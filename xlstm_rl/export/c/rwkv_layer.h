/* One step of an RWKV-6 block (Peng et al. 2024, arXiv:2404.05892, section 4). */
#pragma once
#include "gated_linear.h"

typedef struct {
  int64_t D, H, K, R, F; /* R: rank of the matrices that mix; F: hidden width of the channel mix */
  matrix lora_in, heads[4], decay_in, decay_out; /* heads: r, k, v, g */
  matrix out, channel_key, channel_value, channel_read;
  const float *time_norm, *channel_norm, *mix_x, *mix, *lora_out; /* mix [5, D], lora_out [5, R, D] */
  const float *decay_bias, *bonus, *head_norm, *channel_mix;      /* channel_mix [2, D] */
} rwkv_layer;

/* x [D] becomes the block's output. state: u [D] and c [D] of the step before, S [H, K, K].
   work: 4 D + 6 H K + 6 R + F floats. */
LOCAL void rwkv_layer_step(const rwkv_layer *l, float *state, float *x, float *work) {
  const int64_t D = l->D, K = l->K, I = l->H * K, R = l->R, F = l->F;
  float *u = work, *mixed = u + D, *read = mixed + D, *value = read + D, *r = value + D;
  float *decay = r + 4 * I, *o = decay + I, *low = o + I, *rank = low + 5 * R, *key = rank + R;
  norm(D, l->time_norm, x, u);
  mix_in(D, u, state, l->mix_x, mixed);
  linear(D, 5 * R, l->lora_in, 0, UNIT_TANH, mixed, low);
  for (int64_t m = 0; m < 5; m++) {
    memcpy(read, l->mix + m * D, (size_t)D * sizeof(float));
    for (int64_t e = 0; e < R; e++)
      for (int64_t d = 0; d < D; d++) read[d] += low[m * R + e] * l->lora_out[(m * R + e) * D + d];
    mix_in(D, u, state, read, mixed);
    if (m < 4) rows_of(l->heads[m], 0, I, D, mixed, 0, r + m * I);
    else linear(D, R, l->decay_in, 0, UNIT_TANH, mixed, rank);
  }
  memcpy(state, u, (size_t)D * sizeof(float));
  rows_of(l->decay_out, 0, I, R, rank, l->decay_bias, decay);
  for (int64_t i = 0; i < I; i++) decay[i] = expf(-expf(decay[i]));
  attend_linearly(l->H, K, K, K, r, r + I, r + 2 * I, decay, l->bonus, state + 2 * D, o);
  for (int64_t at = 0; at < I; at += K) norm(K, l->head_norm + at, o + at, o + at);
  apply_unit(I, UNIT_SILU, r + 3 * I);
  multiply(I, r + 3 * I, o);
  rows_of(l->out, 0, D, I, o, 0, mixed);
  add(D, mixed, x);

  float *before = state + D;
  norm(D, l->channel_norm, x, u);
  mix_in(D, u, before, l->channel_mix, mixed);
  linear(D, F, l->channel_key, 0, UNIT_RELU, mixed, key);
  multiply(F, key, key);
  rows_of(l->channel_value, 0, D, F, key, 0, value);
  mix_in(D, u, before, l->channel_mix + D, mixed);
  rows_of(l->channel_read, 0, D, D, mixed, 0, read);
  apply_sigmoid(D, read);
  multiply(D, read, value);
  add(D, value, x);
  memcpy(before, u, (size_t)D * sizeof(float));
}
