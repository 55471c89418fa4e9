/* The causal depthwise convolution with an optional SiLU: forward, backward, one step. */
#include "arena.h"
#include "conv1d.h"
#include "export.h"
#include "parallel.h"
#include "transpose.h"

#define ROWS_AT_ONCE 32
/* Groups of sequences: each sums into gradients of its own, which are then added in order. */
#define CONV_GROUPS 8

typedef struct {
  int64_t B, T, C, W, silu, workers;
  const float *x, *weight, *bias; /* [B, T, C], [C, W], [C] or null; a step has T = 1 */
  const uint8_t *reset;           /* [B, T] or null */
  const float *state;             /* [B, W - 1, C]; null: zeros */
  float *y, *state_1;
  const float *dy, *dstate_1; /* from here on for the backward only; null: zero */
  float *dx, *dweight, *dbias, *dstate;
  char *work;
} conv1d_arguments;

typedef struct {
  const conv1d_arguments *a;
  int64_t groups, each; /* bytes of scratch a worker */
  float *taps, *zeros, *bias; /* [W, C], [C], [C] */
  float *dtaps, *dbias;       /* [groups, W, C], [groups, C] */
  char *scratch;
} conv_pass;

typedef struct {
  const float **back; /* [ROWS_AT_ONCE, W] */
  int32_t *reach;     /* [T] */
  float *dp;          /* [T, C]: of what SiLU was applied to */
} conv_scratch;

static conv_scratch cut_conv_scratch(arena *from, const conv1d_arguments *a) {
  conv_scratch s;
  s.back = (const float **)take_bytes(from, ROWS_AT_ONCE * a->W * (int64_t)sizeof(float *));
  s.reach = take_ints(from, a->T);
  s.dp = take(from, a->dy || a->dstate_1 || a->dx ? a->T * a->C : 0);
  return s;
}

static int64_t cut_conv(conv_pass *f, char *base) {
  const conv1d_arguments *a = f->a;
  arena from = {base, 0}, scratch = {0, 0};
  f->groups = a->B < CONV_GROUPS ? a->B : CONV_GROUPS;
  f->taps = take(&from, a->W * a->C), f->zeros = take(&from, a->C), f->bias = take(&from, a->C);
  f->dtaps = take(&from, f->groups * a->W * a->C), f->dbias = take(&from, f->groups * a->C);
  cut_conv_scratch(&scratch, a);
  f->each = scratch.used;
  f->scratch = take_bytes(&from, a->workers * f->each);
  return from.used;
}

static conv_pass begin_conv(const conv1d_arguments *a) {
  conv_pass f = {.a = a};
  const size_t bytes = (size_t)a->C * sizeof(float);
  cut_conv(&f, a->work);
  transpose(a->C, a->W, a->weight, a->W, f.taps, a->C);
  memset(f.zeros, 0, bytes);
  if (a->bias) memcpy(f.bias, a->bias, bytes);
  else memset(f.bias, 0, bytes);
  return f;
}

INLINE void convolve_rows(const conv_pass *f, int64_t n, int64_t W, const float *const *back,
                          float *y) {
  const int64_t C = f->a->C;
  for (int64_t j = 0; j < n; j++)
    FOR_VECTORS(i, C, left) {
      vf p = convolve_at(i, left, W, back + j * W, f->taps, C, load_left(f->bias + i, left));
      if (f->a->silu) p *= vsigmoid(p);
      store_left(y + j * C + i, p, left);
    }
}

static void forward_sequence(int b, int worker, void *context) {
  const conv_pass *f = context;
  const conv1d_arguments *a = f->a;
  arena from = {f->scratch + worker * f->each, 0};
  const conv_scratch w = cut_conv_scratch(&from, a);
  const int64_t C = a->C, W = a->W, T = a->T;
  const float *x = a->x + b * T * C, *state = a->state ? a->state + b * (W - 1) * C : 0;
  const uint8_t *reset = a->reset ? a->reset + b * T : 0;
  int64_t reach = state ? W - 1 : -1;
  for (int64_t t = 0; t < T; t += ROWS_AT_ONCE) {
    const int64_t n = T - t < ROWS_AT_ONCE ? T - t : ROWS_AT_ONCE;
    reach = look_back(n, t, W, reset, reach, x, C, state, C, f->zeros, w.back);
    if (W == 4) convolve_rows(f, n, 4, w.back, a->y + (b * T + t) * C);
    else convolve_rows(f, n, W, w.back, a->y + (b * T + t) * C);
  }
  conv_state_after(T, C, W, reach, x, C, state, C, a->state_1 + b * (W - 1) * C);
}

/* dp of every step, and what it says about taps and bias */
static void weights_backward(const conv_pass *f, int64_t b, conv_scratch w, float *dtaps,
                             float *dbias) {
  const conv1d_arguments *a = f->a;
  const int64_t C = a->C, W = a->W, T = a->T;
  const float *x = a->x + b * T * C, *state = a->state ? a->state + b * (W - 1) * C : 0;
  const uint8_t *reset = a->reset ? a->reset + b * T : 0;
  int64_t reach = state ? W - 1 : -1;
  for (int64_t t = 0; t < T; t++) {
    const float *dy = a->dy ? a->dy + (b * T + t) * C : f->zeros;
    reach = look_back(1, t, W, reset, reach, x, C, state, C, f->zeros, w.back);
    w.reach[t] = (int32_t)reach;
    FOR_VECTORS(i, C, left) {
      vf d = load_left(dy + i, left);
      if (a->silu) {
        const vf p = convolve_at(i, left, W, w.back, f->taps, C, load_left(f->bias + i, left));
        const vf sigmoid = vsigmoid(p);
        d *= sigmoid + p * sigmoid * (broadcast(1) - sigmoid);
      }
      store_left(w.dp + t * C + i, d, left);
      store_left(dbias + i, load_left(dbias + i, left) + d, left);
      for (int64_t k = 0; k < W; k++) {
        float *to = dtaps + (W - 1 - k) * C + i;
        store_left(to, load_left(to, left) + d * load_left(w.back[k] + i, left), left);
      }
    }
  }
}

static void backward_sequence(const conv_pass *f, int64_t b, conv_scratch w, float *dtaps,
                              float *dbias) {
  const conv1d_arguments *a = f->a;
  const int64_t C = a->C, W = a->W, T = a->T;
  weights_backward(f, b, w, dtaps, dbias);
  const float *end = a->dstate_1 ? a->dstate_1 + b * (W - 1) * C : 0;
  for (int64_t t = a->dstate ? 1 - W : 0; t < T; t++) { /* below 0: of the state */
    const int64_t age = T - 1 - t; /* what the state behind took, it took from here */
    const int taken = end && age < W - 1 && age <= w.reach[T - 1];
    float *dx = t < 0 ? a->dstate + (b * (W - 1) + W - 1 + t) * C : a->dx + (b * T + t) * C;
    for (int64_t k = 0; k < W; k++) {
      const int64_t at = t + k;
      w.back[k] = at >= 0 && at < T && w.reach[at] >= k ? w.dp + at * C : f->zeros;
    }
    FOR_VECTORS(i, C, left) {
      const vf own = taken ? load_left(end + (W - 2 - age) * C + i, left) : broadcast(0);
      store_left(dx + i, convolve_at(i, left, W, w.back, f->taps, C, own), left);
    }
  }
}

static void backward_group(int index, int worker, void *context) {
  const conv_pass *f = context;
  const conv1d_arguments *a = f->a;
  arena from = {f->scratch + worker * f->each, 0};
  const conv_scratch w = cut_conv_scratch(&from, a);
  float *dtaps = f->dtaps + index * a->W * a->C, *dbias = f->dbias + index * a->C;
  memset(dtaps, 0, (size_t)(a->W * a->C) * sizeof(float));
  memset(dbias, 0, (size_t)a->C * sizeof(float));
  for (int64_t b = index * a->B / f->groups; b < (index + 1) * a->B / f->groups; b++)
    backward_sequence(f, b, w, dtaps, dbias);
}

XL_API int64_t xl_conv1d_bytes(const conv1d_arguments *a);
XL_API int xl_conv1d_forward(const conv1d_arguments *a);
XL_API int xl_conv1d_backward(const conv1d_arguments *a);
XL_API int xl_conv1d_step(const conv1d_arguments *a);

int64_t xl_conv1d_bytes(const conv1d_arguments *a) {
  conv_pass f = {.a = a};
  return cut_conv(&f, 0);
}

int xl_conv1d_forward(const conv1d_arguments *a) {
  conv_pass f = begin_conv(a);
  xl_parallel_for((int)a->B, forward_sequence, &f);
  return 0;
}

int xl_conv1d_backward(const conv1d_arguments *a) {
  conv_pass f = begin_conv(a);
  xl_parallel_for((int)f.groups, backward_group, &f);
  for (int64_t e = 1; e < f.groups; e++) {
    for (int64_t i = 0; i < a->W * a->C; i++) f.dtaps[i] += f.dtaps[e * a->W * a->C + i];
    for (int64_t i = 0; i < a->C; i++) f.dbias[i] += f.dbias[e * a->C + i];
  }
  if (f.groups) transpose(a->W, a->C, f.dtaps, a->C, a->dweight, a->W);
  if (f.groups && a->dbias) memcpy(a->dbias, f.dbias, (size_t)a->C * sizeof(float));
  return 0;
}

/* state_1 may be the state */
int xl_conv1d_step(const conv1d_arguments *a) {
  const conv_pass f = begin_conv(a);
  const int64_t C = a->C, W = a->W;
  for (int64_t b = 0; b < a->B; b++) {
    const int fresh = !a->state || (a->reset && a->reset[b]);
    const float *state = a->state ? a->state + b * (W - 1) * C : 0;
    FOR_VECTORS(i, C, left) {
      vf now = load_left(a->x + b * C + i, left);
      vf p = load_left(f.bias + i, left) + now * load_left(f.taps + (W - 1) * C + i, left);
      for (int64_t e = W - 2; e >= 0; e--) { /* from the youngest: each moves one place up */
        const vf old = fresh ? broadcast(0) : load_left(state + e * C + i, left);
        p += old * load_left(f.taps + e * C + i, left);
        store_left(a->state_1 + (b * (W - 1) + e) * C + i, now, left);
        now = old;
      }
      if (a->silu) p *= vsigmoid(p);
      store_left(a->y + b * C + i, p, left);
    }
  }
  return 0;
}
