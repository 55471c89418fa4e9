/* The sLSTM forward (kernels/EQUATIONS.md): per step one small product h R and one pass over gates. */
#include "slstm.h"

#include "parallel.h"
#include "slstm_cell.h"
#include "slstm_input.h"

/* Of an item: the pre-activations of a chunk, m, and the running state when nothing is saved. */
static int64_t item_work(int64_t D) { return (SLSTM_CHUNK * 4 + SLSTM_ROWS * 4) * slstm_padded(D); }
/* Of a head: R or weight as rows of whole vectors, where they are not such rows by themselves. */
static int64_t packed(int64_t D) { return D % VW ? 4 * D * slstm_padded(D) : 0; }

int64_t xl_slstm_lanes(const xl_slstm_forward_args *unused) {
  (void)unused;
  return VW;
}

int64_t slstm_saved_size(int64_t B, int64_t T, int64_t H, int64_t D) {
  return H * B * (T * SLSTM_GATES + (T + 1) * 3) * slstm_padded(D);
}

int64_t slstm_work_size(int64_t B, int64_t T, int64_t H, int64_t D) {
  (void)T;
  return H * (2 * packed(D) + 4 * slstm_padded(D) + slstm_parts(B) * item_work(D));
}

int64_t xl_slstm_work_bytes(const xl_slstm_forward_args *a) {
  return 4 * slstm_work_size(a->B, a->T, a->H, a->D);
}

typedef struct {
  const float *R[4], *weight[4]; /* of each gate [D][Dp] */
  const float *b;                /* [4][Dp] */
  float *raw, *m, *state;
} item_buffers;

static void group_forward(const xl_slstm_forward_args *a, int64_t head, int64_t group,
                          const item_buffers *w) {
  const int64_t B = a->B, T = a->T, H = a->H, D = a->D, Dp = slstm_padded(D);
  const int64_t first = group * SLSTM_ROWS, left = B - first;
  const int64_t rows = left < SLSTM_ROWS ? left : SLSTM_ROWS, each = rows * Dp;
  const int exponential = a->exponential != 0;
  float *m = w->m;
  /* not saving, every step overwrites the one before */
  slstm_saved s = {0, w->state, w->state + each, w->state + 2 * each};
  int64_t next = 0;
  if (a->saved) s = slstm_saved_of(a->saved, B, T, D, head, group), next = each;

  const int64_t at = (first * H + head) * D;
  if (a->h0) {
    pad_rows(rows, D, a->h0 + at, H * D, s.h, Dp);
    pad_rows(rows, D, a->c0 + at, H * D, s.c, Dp);
    pad_rows(rows, D, a->n0 + at, H * D, s.n, Dp);
    pad_rows(rows, D, a->m0 + at, H * D, m, Dp);
  } else {
    clear(rows * Dp, s.h), clear(rows * Dp, s.c);
    clear(rows * Dp, s.n), clear(rows * Dp, m);
  }

  for (int64_t t = 0; t < T; t++) {
    float *h = s.h + t * next, *c = s.c + t * next, *n = s.n + t * next;
    const int64_t in_chunk = t % slstm_steps(rows);
    if (in_chunk == 0) {
      const int64_t steps = T - t < slstm_steps(rows) ? T - t : slstm_steps(rows);
      slstm_fill(a, (slstm_chunk){first, rows, head, t, steps}, w->weight, w->b, w->raw);
    }
    float *raw = w->raw + in_chunk * 4 * each;
    for (int64_t r = 0; r < rows; r++)
      if (a->reset && a->reset[(first + r) * T + t]) clear(Dp, h + r * Dp);
    if (t > 0 || a->h0)
      for (int g = 0; g < 4; g++)
        rows_product(rows, Dp, D, (strided){h, Dp, 1}, w->R[g], Dp, raw + g * Dp, 4 * Dp, 1);

    for (int64_t r = 0; r < rows; r++) {
      const int fresh = (a->reset && a->reset[(first + r) * T + t]) || (t == 0 && !a->h0);
      float *gates = s.gates ? s.gates + (t * rows + r) * SLSTM_GATES * Dp : 0;
      float *y = a->y + (((first + r) * T + t) * H + head) * D;
      for (int64_t e = 0; e < Dp; e += VW) {
        const float *g = raw + r * 4 * Dp + e;
        const int64_t k = r * Dp + e;
        vf i = load(g), f = load(g + Dp), z = load(g + 2 * Dp), o = load(g + 3 * Dp);
        slstm_after after = fresh ? first_cell(i, f, z, o)
                               : cell(i, f, z, o, load(c + k), load(n + k), load(m + k),
                                      exponential, t == 0);
        store(m + k, after.m);
        store(h + next + k, after.h), store(c + next + k, after.c), store(n + next + k, after.n);
        store_left(y + e, after.h, D - e);
        if (gates) {
          store(gates + SLSTM_WRITE * Dp + e, after.write);
          store(gates + SLSTM_FORGET * Dp + e, after.forget);
          store(gates + SLSTM_TO_F * Dp + e, after.to_f);
          store(gates + SLSTM_Z * Dp + e, after.z);
          store(gates + SLSTM_O * Dp + e, after.o);
        }
      }
    }
  }
  unpad_rows(rows, D, s.h + T * next, Dp, a->hT + at, H * D);
  unpad_rows(rows, D, s.c + T * next, Dp, a->cT + at, H * D);
  unpad_rows(rows, D, s.n + T * next, Dp, a->nT + at, H * D);
  unpad_rows(rows, D, m, Dp, a->mT + at, H * D);
}

typedef struct {
  const xl_slstm_forward_args *args;
  float *b, *R, *weight, *items;
} forward_context;

static void pack_head(int head, int worker, void *context) {
  (void)worker;
  const forward_context *w = context;
  const xl_slstm_forward_args *a = w->args;
  const int64_t D = a->D, Dp = slstm_padded(D);
  for (int64_t g = 0; g < 4; g++) {
    const int64_t at = g * a->H + head, to = head * 4 + g;
    if (a->b) pad_rows(1, D, a->b + at * D, D, w->b + to * Dp, Dp);
    else clear(Dp, w->b + to * Dp);
    if (D % VW == 0) continue;
    pad_rows(D, D, a->R + at * D * D, D, w->R + to * D * Dp, Dp);
    if (!a->x) pad_rows(D, D, a->weight + at * D * D, D, w->weight + to * D * Dp, Dp);
  }
}

static void forward_item(int item, int worker, void *context) {
  (void)worker;
  const forward_context *w = context;
  const xl_slstm_forward_args *a = w->args;
  const int64_t D = a->D, Dp = slstm_padded(D), parts = slstm_parts(a->B);
  const int64_t head = item / parts, part = item % parts;
  item_buffers buffers = {.b = w->b + head * 4 * Dp, .raw = w->items + item * item_work(D)};
  for (int64_t g = 0; g < 4; g++) {
    const int64_t at = (g * a->H + head) * D * D, to = (head * 4 + g) * D * Dp;
    buffers.R[g] = D % VW ? w->R + to : a->R + at;
    buffers.weight[g] = a->x ? 0 : D % VW ? w->weight + to : a->weight + at;
  }
  buffers.m = buffers.raw + SLSTM_CHUNK * 4 * Dp;
  buffers.state = buffers.m + SLSTM_ROWS * Dp;
  for (int64_t group = part; group < slstm_groups(a->B); group += parts)
    group_forward(a, head, group, &buffers);
}

int xl_slstm_forward(const xl_slstm_forward_args *a) {
  if (a->B == 0) return 0;
  forward_context w = {.args = a, .b = a->work};
  w.R = w.b + a->H * 4 * slstm_padded(a->D);
  w.weight = w.R + a->H * packed(a->D);
  w.items = w.weight + a->H * packed(a->D);
  xl_parallel_for((int)a->H, pack_head, &w);
  xl_parallel_for((int)(a->H * slstm_parts(a->B)), forward_item, &w);
  return 0;
}
