/* One step of the cell for one head: the gates of many heads at once, then each state by itself.

   Nothing is mixed between rows, so what is no number stays where it is; the corners are those of
   kernels/mlstm/reference.py. States may be overwritten in place. */
#pragma once
#include "log_weight.h"
#include "repeat.h"

#define STEP_GATES 64 /* heads whose gates are made together */

typedef struct {
  float forget[STEP_GATES] ALIGNED, write[STEP_GATES] ALIGNED, floor[STEP_GATES] ALIGNED;
  int32_t fresh[STEP_GATES]; /* nothing is there: the old state is not read */
} step_gates;

INLINE int is_fresh(int64_t K, int64_t V, const float *C, const float *n, float m) {
  if (!C) return 1;
  if (m != 0) return 0;
  for (int64_t e = 0; e < K; e++)
    if (n[e] != 0) return 0;
  for (int64_t e = 0; e < K * V; e++)
    if (C[e] != 0) return 0;
  return 1;
}

/* `count` heads, row after row of H; i, f, m are [count], reset has a byte a row, C and n may be null
   with m. new_m may be m. */
INLINE void make_step_gates(int64_t count, int64_t H, int64_t K, int64_t V, const float *i,
                            const float *f, const float *m, const float *C, const float *n,
                            const uint8_t *reset, int exponential, float *new_m, step_gates *to) {
  float log_f[STEP_GATES] ALIGNED = {0}, keep[STEP_GATES] ALIGNED = {0};
  float put[STEP_GATES] ALIGNED = {0}, least[STEP_GATES] ALIGNED = {0};
  memcpy(log_f, f, (size_t)count * sizeof(float));
  for (int64_t e = 0; !exponential && e < count; e += VW)
    store(log_f + e, vlog_sigmoid(load(log_f + e)));
  for (int64_t e = 0; e < count; e++) {
    const int start = (reset && reset[e / H]) || f[e] < LEAST_LOG_FORGET;
    const float older = (start || !m ? 0 : m[e]) + log_f[e];
    to->fresh[e] = start || is_fresh(K, V, C ? C + e * K * V : 0, n ? n + e * K : 0, m ? m[e] : 0);
    float next = older >= i[e] ? older : older < i[e] ? i[e] : older + i[e]; /* the sum of a NaN */
    if (to->fresh[e] && !isnan(log_f[e])) next = i[e];
    if (next == -INFINITY) next = 0; /* still nothing: the row stays fresh */
    keep[e] = to->fresh[e] ? -INFINITY : older - next;
    put[e] = i[e] - next;
    least[e] = next;
    new_m[e] = next;
  }
  const vf bound = broadcast(EXP_BOUND), root = broadcast(sqrtf((float)K));
  for (int64_t e = 0; e < count; e += VW) {
    store(to->forget + e, weight(load(keep + e)));
    store(to->write + e, weight(load(put + e)));
    /* the scale of q moved to the floor */
    store(to->floor + e, vexp(-vmin(bound, vmax(-bound, load(least + e)))) * root);
  }
}

/* Columns of C, N vectors of them: C_1 = forget C + k v^T, h = q C_1 */
#define STEP_START(x) vf v##x = load(v + x * VW), h##x = broadcast(0);
#define STEP_ADD(x)                                                                         \
  {                                                                                         \
    const vf t = fresh ? kr * v##x : kr * v##x + keep * load(C + r * ld + x * VW);          \
    store(C_1 + r * ld + x * VW, t);                                                        \
    h##x += qr * t;                                                                         \
  }
#define STEP_END(x) store(h + x * VW, h##x);
#define DEFINE_STEP(N, EACH)                                                                \
  INLINE void step_columns_##N(int64_t K, int64_t ld, const float *q, const float *k,       \
                               const float *v, float forget, int fresh, const float *C,     \
                               float *C_1, float *h) {                                      \
    const vf keep = broadcast(forget);                                                      \
    EACH(STEP_START)                                                                        \
    for (int64_t r = 0; r < K; r++) {                                                       \
      const vf kr = broadcast(k[r]), qr = broadcast(q[r]);                                  \
      EACH(STEP_ADD)                                                                        \
    }                                                                                       \
    EACH(STEP_END)                                                                          \
  }
DEFINE_STEP(4, ROWS_4)
DEFINE_STEP(1, ROWS_1)

/* The state of one head and its h [V]. written [K] is scratch. */
INLINE void step_head(int64_t K, int64_t V, const float *q, const float *k, const float *v,
                      const step_gates *gates, int64_t e, const float *C, const float *n, float *C_1,
                      float *n_1, float *h, float *written) {
  const int fresh = gates->fresh[e];
  const vf put = broadcast(gates->write[e]), keep = broadcast(gates->forget[e]);
  vf along = broadcast(0);
  FOR_VECTORS(r, K, left) {
    vf t = load_left(k + r, left) * put;
    store_left(written + r, t, left);
    if (!fresh) t += keep * load_left(n + r, left);
    store_left(n_1 + r, t, left);
    along += t * load_left(q + r, left);
  }
  const int64_t fours = V / (4 * VW) * (4 * VW), ones = V / VW * VW;
  for (int64_t at = 0; at < fours; at += 4 * VW)
    if (fresh) step_columns_4(K, V, q, written, v + at, 0, 1, C + at, C_1 + at, h + at);
    else step_columns_4(K, V, q, written, v + at, gates->forget[e], 0, C + at, C_1 + at, h + at);
  for (int64_t at = fours; at < ones; at += VW)
    if (fresh) step_columns_1(K, V, q, written, v + at, 0, 1, C + at, C_1 + at, h + at);
    else step_columns_1(K, V, q, written, v + at, gates->forget[e], 0, C + at, C_1 + at, h + at);
  for (int64_t at = ones; at < V; at++) {
    float sum = 0;
    for (int64_t r = 0; r < K; r++) {
      float t = written[r] * v[at];
      if (!fresh) t += gates->forget[e] * C[r * V + at];
      C_1[r * V + at] = t;
      sum += q[r] * t;
    }
    h[at] = sum;
  }
  const float size = fabsf(sum_lanes(along)), floor = gates->floor[e];
  const vf inverse = broadcast(1.0f / (size <= floor ? floor : size));
  FOR_VECTORS(r, V, left) store_left(h + r, load_left(h + r, left) * inverse, left);
}
