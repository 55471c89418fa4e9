/* Weights laid out for vectors, and the gate projection folded through q, k, v. */
#include "mlstm_block.h"

void prepare_weights(const mlstm_block_arguments *a, mlstm_prepared p) {
  const mlstm_weights *w = &a->weights;
  const mlstm_sizes z = sizes_of(a);
  const int64_t I = a->I, inner = z.inner, W = a->W, left = inner - I;
  if (W) transpose(I, W, w->conv, W, p.taps, inner);
  for (int64_t k = 0; left && k < W; k++)
    memset(p.taps + k * inner + I, 0, (size_t)left * sizeof(float));
  float *const rows[] = {p.conv_bias, p.head_norm, p.skip, p.qkv_bias, p.qkv_bias + inner,
                         p.qkv_bias + 2 * inner};
  const float *b = w->qkv_bias;
  const float *const from[] = {w->conv_bias, w->head_norm, w->skip, b, b ? b + I : 0,
                               b ? b + 2 * I : 0};
  for (int64_t e = 0; e < 6; e++) {
    memset(rows[e], 0, (size_t)inner * sizeof(float));
    if (from[e]) memcpy(rows[e], from[e], (size_t)I * sizeof(float));
  }
  memset(p.gate, 0, (size_t)(3 * I * z.ldg) * sizeof(float));
  transpose(2 * a->H, 3 * I, w->gate, 3 * I, p.gate, z.ldg);
  if (a->S != 4) return;
  memset(p.lanes, 0, (size_t)(12 * inner) * sizeof(float));
  for (int64_t e = 0; e < 3; e++)
    spread_lanes(I, w->qkv + e * 4 * I, p.lanes + e * 4 * inner, inner, 0);
}

void fold_gates(const mlstm_block_arguments *a, mlstm_prepared p, float *fold_c, float *fold_u,
                float *fold_bias) {
  const mlstm_sizes z = sizes_of(a);
  const int64_t I = a->I, S = a->S;
  const size_t bytes = (size_t)(z.inner * z.ldg) * sizeof(float);
  memset(fold_c, 0, bytes), memset(fold_u, 0, bytes);
  for (int64_t part = 0; part < 3; part++) {
    const float *w = a->weights.qkv + part * I * S;
    for (int64_t i = 0; i < I; i++, w += S) { /* w: row i of its block */
      const float *to = p.gate + (part * I + i / S * S) * z.ldg;
      float *fold = (part < 2 ? fold_c : fold_u) + i * z.ldg;
      for (int64_t g = 0; g < z.ldg; g += VW) {
        vf sum = broadcast(0);
        for (int64_t o = 0; o < S; o++) sum += broadcast(w[o]) * load(to + o * z.ldg + g);
        store(fold + g, load(fold + g) + sum);
      }
    }
  }
  memset(fold_bias, 0, (size_t)z.ldg * sizeof(float));
  for (int64_t g = 0; g < 2 * a->H; g++) {
    fold_bias[g] = a->weights.gate_bias[g];
    for (int64_t part = 0; a->weights.qkv_bias && part < 3; part++)
      fold_bias[g] += dot(I, a->weights.qkv_bias + part * I, a->weights.gate + (3 * g + part) * I);
  }
}

void make_qkv(const mlstm_block_arguments *a, mlstm_prepared p, int64_t n, const float *c,
              int64_t ldc, const float *u, int64_t ldu, float *qkv) {
  const mlstm_sizes z = sizes_of(a);
  float *q = qkv, *k = qkv + CHUNK * z.ldi, *v = k + CHUNK * z.ldi;
  if (a->S == 4) {
    for (int64_t i = 0; i < z.inner; i += VW) {
      const float *lanes = p.lanes + i;
      const four_lanes wq = load_lanes(lanes, z.inner);
      const four_lanes wk = load_lanes(lanes + 4 * z.inner, z.inner);
      const vf bq = load(p.qkv_bias + i), bk = load(p.qkv_bias + z.inner + i);
      for (int64_t r = 0; r < n; r++) {
        const vf x = load(c + r * ldc + i);
        store(q + r * z.ldi + i, times_fours(x, wq) + bq);
        store(k + r * z.ldi + i, times_fours(x, wk) + bk);
      }
      const four_lanes wv = load_lanes(lanes + 8 * z.inner, z.inner);
      const vf bv = load(p.qkv_bias + 2 * z.inner + i);
      for (int64_t r = 0; r < n; r++)
        store(v + r * z.ldi + i, times_fours(load(u + r * ldu + i), wv) + bv);
    }
    return;
  }
  for (int64_t part = 0; part < 3; part++) {
    float *y = qkv + part * CHUNK * z.ldi;
    for (int64_t r = 0; r < n; r++)
      memcpy(y + r * z.ldi, p.qkv_bias + part * z.inner, (size_t)z.inner * sizeof(float));
    block_diagonal_any(n, a->I, a->S, part < 2 ? c : u, part < 2 ? ldc : ldu,
                       a->weights.qkv + part * a->I * a->S, 0, y, z.ldi);
  }
}
