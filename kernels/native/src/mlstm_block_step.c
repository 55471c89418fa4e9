/* One step of the mLSTM block, up to 16 rows at a time; every weight is read where it lies, so that
   nothing can go stale between two steps. States may be overwritten in place. */
#include "block_diagonal.h"
#include "export.h"
#include "layer_norm.h"
#include "arena.h"
#include "conv1d.h"
#include "matvec.h"
#include "mlstm_block_step.h"
#include "mlstm_step.h"
#include "parallel.h"

#define STEP_ROWS 16

typedef struct {
  const mlstm_step_arguments *a;
  int64_t inner, each; /* I in whole vectors; bytes of scratch a worker */
  float *lanes, *taps; /* [3, 4, inner], [W, inner] */
  char *scratch;
} step_pass;

typedef struct {
  float *normed, *u, *c, *qkv, *y, *down, *gates, *work, *written;
} step_scratch;

static step_scratch cut_step_scratch(arena *from, const step_pass *f) {
  const mlstm_step_arguments *a = f->a;
  const int64_t widest = 2 * f->inner > a->D ? 2 * f->inner : a->D;
  step_scratch s;
  s.normed = take(from, STEP_ROWS * a->D);
  s.u = take(from, STEP_ROWS * 2 * f->inner), s.c = take(from, STEP_ROWS * f->inner);
  s.qkv = take(from, 3 * STEP_ROWS * f->inner), s.y = take(from, STEP_ROWS * f->inner);
  s.down = take(from, STEP_ROWS * a->D), s.gates = take(from, 3 * STEP_ROWS * a->H + 2 * VW);
  s.work = take(from, rows_times_work(widest, widest));
  s.written = take(from, f->inner);
  return s;
}

static int64_t cut_step(step_pass *f, char *base) {
  const mlstm_step_arguments *a = f->a;
  arena from = {base, 0}, scratch = {0, 0};
  f->inner = ROUND_UP(a->I, 16);
  f->lanes = take(&from, 12 * f->inner);
  f->taps = take(&from, a->W * f->inner);
  cut_step_scratch(&scratch, f);
  f->each = scratch.used;
  f->scratch = take_bytes(&from, a->workers * f->each);
  return from.used;
}

/* c of one row and the state of the convolution behind it */
INLINE void convolve_step(const step_pass *f, int64_t b, int64_t W, int fresh, const float *u,
                          float *c) {
  const mlstm_step_arguments *a = f->a;
  const int64_t I = a->I, at = b * (W - 1) * I;
  const float *before = a->before.conv ? a->before.conv + at : 0;
  float *after = a->after.conv + at;
  if (!before) fresh = 1;
  FOR_VECTORS(i, I, left) {
    vf now = load_left(u + i, left);
    vf p = load_left(a->weights.conv_bias + i, left) + now * load(f->taps + (W - 1) * f->inner + i);
    for (int64_t e = W - 2; e >= 0; e--) { /* from the youngest: each moves one place up */
      const vf old = fresh ? broadcast(0) : load_left(before + e * I + i, left);
      p += old * load(f->taps + e * f->inner + i);
      store_left(after + e * I + i, now, left);
      now = old;
    }
    store_left(c + i, p * vsigmoid(p), left);
  }
}

INLINE void qkv_step(const step_pass *f, const float *c, const float *u, float *qkv) {
  const mlstm_step_arguments *a = f->a;
  const int64_t I = a->I;
  for (int64_t part = 0; part < 3; part++) {
    const float *x = part < 2 ? c : u, *bias = a->weights.qkv_bias;
    float *y = qkv + part * I;
    if (bias) memcpy(y, bias + part * I, (size_t)I * sizeof(float));
    if (a->S == 4) {
      FOR_VECTORS(i, I, left) {
        const four_lanes w = load_lanes(f->lanes + part * 4 * f->inner + i, f->inner);
        const vf own = times_fours(load_left(x + i, left), w);
        store_left(y + i, bias ? load_left(y + i, left) + own : own, left);
      }
      continue;
    }
    if (!bias) memset(y, 0, (size_t)I * sizeof(float));
    block_diagonal_any(1, I, a->S, x, I, a->weights.qkv + part * I * a->S, 0, y, I);
  }
}

INLINE void gate_step(const step_pass *f, const float *h, const float *c, const float *z,
                      float *y) {
  const mlstm_step_arguments *a = f->a;
  const int64_t K = a->I / a->H;
  for (int64_t at = 0; at < a->I; at += K) {
    float mean, inverse;
    row_moments(K, h + at, &mean, &inverse);
    FOR_VECTORS(i, K, left) {
      const vf normed = (load_left(h + at + i, left) - broadcast(mean)) * broadcast(inverse);
      const vf skipped = load_left(a->weights.skip + at + i, left) * load_left(c + at + i, left);
      const vf x = load_left(z + at + i, left);
      const vf inside = normed * load_left(a->weights.head_norm + at + i, left) + skipped;
      store_left(y + at + i, inside * x * vsigmoid(x), left);
    }
  }
}

static void step_rows(int index, int worker, void *context) {
  const step_pass *f = context;
  const mlstm_step_arguments *a = f->a;
  arena from = {f->scratch + worker * f->each, 0};
  const step_scratch s = cut_step_scratch(&from, f);
  const int64_t b0 = index * STEP_ROWS, left = a->B - b0, n = left < STEP_ROWS ? left : STEP_ROWS;
  const int64_t D = a->D, I = a->I, H = a->H, K = I / H;
  for (int64_t r = 0; r < n; r++) {
    const float *x = a->x + (b0 + r) * D;
    float mean, inverse;
    row_moments(D, x, &mean, &inverse);
    normalise_row(D, x, a->weights.norm, mean, inverse, s.normed + r * D);
  }
  rows_times(n, 2 * I, D, s.normed, D, a->weights.up, a->weights.up_bias, s.u, 2 * I, s.work);
  float *i = s.gates, *g = i + STEP_ROWS * H + VW, *pair = g + STEP_ROWS * H + VW;
  for (int64_t r = 0; r < n; r++) {
    const float *u = s.u + r * 2 * I;
    float *c = s.c + r * I, *qkv = s.qkv + r * 3 * I;
    const int fresh = a->reset && a->reset[b0 + r];
    if (a->W == 4) convolve_step(f, b0 + r, 4, fresh, u, c);
    else if (a->W) convolve_step(f, b0 + r, a->W, fresh, u, c);
    else memcpy(c, u, (size_t)I * sizeof(float));
    qkv_step(f, c, u, qkv);
    matvec(2 * H, 3 * I, a->weights.gate, qkv, a->weights.gate_bias, pair);
    memcpy(i + r * H, pair, (size_t)H * sizeof(float));
    memcpy(g + r * H, pair + H, (size_t)H * sizeof(float));
  }
  const int64_t at_once = STEP_GATES / H > 0 ? STEP_GATES / H : 1; /* rows */
  for (int64_t r0 = 0; r0 < n; r0 += at_once)
    for (int64_t head0 = 0; head0 < H; head0 += STEP_GATES) {
      step_gates gates;
      const int64_t rows = n - r0 < at_once ? n - r0 : at_once;
      const int64_t count = rows > 1 || H <= STEP_GATES ? rows * H
                            : H - head0 < STEP_GATES   ? H - head0
                                                       : STEP_GATES;
      const int64_t first = r0 * H + head0, X = b0 * H + first;
      const float *C = a->before.C ? a->before.C + X * K * K : 0;
      const float *norm = a->before.C ? a->before.n + X * K : 0;
      make_step_gates(count, H, K, K, i + first, g + first, C ? a->before.m + X : 0, C, norm,
                      a->reset ? a->reset + b0 + r0 : 0, a->exponential != 0, a->after.m + X,
                      &gates);
      for (int64_t e = 0; e < count; e++) {
        const float *q = s.qkv + (first + e) / H * 3 * I + (first + e) % H * K;
        step_head(K, K, q, q + I, q + 2 * I, &gates, e, C ? C + e * K * K : 0,
                  norm ? norm + e * K : 0, a->after.C + (X + e) * K * K,
                  a->after.n + (X + e) * K, s.y + (first + e) * K,
                  s.written);
      }
    }
  for (int64_t r = 0; r < n; r++)
    gate_step(f, s.y + r * I, s.c + r * I, s.u + r * 2 * I + I, s.y + r * I);
  rows_times(n, D, I, s.y, I, a->weights.down, a->weights.down_bias, s.down, D, s.work);
  for (int64_t r = 0; r < n; r++)
    FOR_VECTORS(k, D, more) {
      const int64_t at = (b0 + r) * D + k;
      const vf y = load_left(s.down + r * D + k, more);
      store_left(a->out + at, load_left(a->x + at, more) + y, more);
    }
}

XL_API int64_t xl_mlstm_block_step_bytes(const mlstm_step_arguments *a);
XL_API int xl_mlstm_block_step(const mlstm_step_arguments *a);

int64_t xl_mlstm_block_step_bytes(const mlstm_step_arguments *a) {
  step_pass f = {.a = a};
  return cut_step(&f, 0);
}

int xl_mlstm_block_step(const mlstm_step_arguments *a) {
  step_pass f = {.a = a};
  cut_step(&f, a->work);
  if (f.inner > a->I) { /* the lanes behind I */
    memset(f.lanes, 0, (size_t)(12 * f.inner) * sizeof(float));
    memset(f.taps, 0, (size_t)(a->W * f.inner) * sizeof(float));
  }
  for (int64_t e = 0; a->S == 4 && e < 3; e++)
    spread_lanes(a->I, a->weights.qkv + e * 4 * a->I, f.lanes + e * 4 * f.inner, f.inner, 0);
  if (a->W) transpose(a->I, a->W, a->weights.conv, a->W, f.taps, f.inner);
  xl_parallel_for((int)((a->B + STEP_ROWS - 1) / STEP_ROWS), step_rows, &f);
  return 0;
}
