/* The sLSTM backward (kernels/EQUATIONS.md): with m held fixed every step passes the gradients of
   h, c and n on linearly. What is left for m itself walks down the maxima. */
#include "slstm.h"

#include "parallel.h"
#include "slstm_input.h"

/* Gradients that an item sums over its groups: of R and of weight [D][4][Dp] each, of b. */
static int64_t item_sums(int64_t D) { return (2 * D + 1) * 4 * slstm_padded(D); }
/* And of its rows: of h, c, n and m, and of the pre-activations of a chunk. */
static int64_t item_work(int64_t D) {
  return item_sums(D) + (SLSTM_ROWS + SLSTM_CHUNK) * 4 * slstm_padded(D);
}

int64_t slstm_backward_work_size(int64_t B, int64_t T, int64_t H, int64_t D) {
  (void)T;
  const int64_t Dp = slstm_padded(D);
  return H * (2 * 4 * Dp * Dp + slstm_parts(B) * item_work(D));
}

int64_t xl_slstm_backward_work_bytes(const xl_slstm_forward_args *a) {
  return 4 * slstm_backward_work_size(a->B, a->T, a->H, a->D);
}

typedef struct {
  const float *Rt, *weight_t;  /* [4][Dp (to)][Dp (from)] */
  float *dh, *dc, *dn, *own;   /* [rows][Dp]; own: of m */
  float *draw;                 /* [steps][rows][4][Dp] */
  float *dR, *db, *dweight;    /* [D][4][Dp], [4][Dp] and [4][D][Dp] */
} item_buffers;

/* Of the final state. c and n are exp(-m) times something without m, and h has no m at all. */
static void begin(const xl_slstm_backward_args *a, const item_buffers *w, const slstm_saved *s,
                  int64_t rows, int64_t at) {
  const int64_t Dp = slstm_padded(a->D), last = a->T * rows * Dp;
  const float *given[4] = {a->dhT, a->dcT, a->dnT, a->dmT};
  float *into[4] = {w->dh, w->dc, w->dn, w->own};
  for (int k = 0; k < 4; k++) {
    clear(rows * Dp, into[k]);
    if (given[k]) pad_rows(rows, a->D, given[k] + at, a->H * a->D, into[k], Dp);
  }
  if (!a->dcT && !a->dnT) return;
  for (int64_t k = 0; k < rows * Dp; k += VW)
    store(w->own + k, load(w->own + k) - load(s->c + last + k) * load(w->dc + k) -
                          load(s->n + last + k) * load(w->dn + k));
}

/* One step of all rows, `VW` elements at a time: from dy, dh, dc, dn to draw, dc, dn. */
static void step_backward(const xl_slstm_backward_args *a, const item_buffers *w,
                          const slstm_saved *s, int64_t head, int64_t first, int64_t rows,
                          int64_t t, float *draw, const uint8_t *fresh, int through) {
  const int64_t T = a->T, H = a->H, D = a->D, Dp = slstm_padded(D);
  const float *c = s->c + t * rows * Dp, *n = s->n + t * rows * Dp;
  const float *c_new = c + rows * Dp, *n_new = n + rows * Dp;
  const vf zero = broadcast(0), one = broadcast(1);
  for (int64_t e = 0; e < Dp; e += VW) {
    vf bi = zero, bf = zero, bz = zero, bo = zero;
    for (int64_t r = 0; r < rows; r++) {
      const int64_t k = r * Dp + e, row = (first + r) * T + t;
      const float *g = s->gates + (t * rows + r) * SLSTM_GATES * Dp + e;
      vf dh = load(w->dh + k);
      if (a->dy) dh += load_left(a->dy + (row * H + head) * D + e, D - e);
      const vf write = load(g + SLSTM_WRITE * Dp), z = load(g + SLSTM_Z * Dp);
      const vf o = load(g + SLSTM_O * Dp);
      const vf per_n = one / load(n_new + k), ratio = load(c_new + k) * per_n;
      const vf through_h = dh * o * per_n;
      const vf dc = load(w->dc + k) + through_h, dn = load(w->dn + k) - through_h * ratio;
      vf di = write * (dc * z + dn), df = zero, dc_old = zero, dn_old = zero;
      const vf dz = dc * write * (one - z * z), do_ = dh * ratio * o * (one - o);
      if (through) {
        vf own = load(w->own + k);
        if (fresh[r]) {
          di += own, own = zero;
        } else {  /* forget = 1: m is that of before, plus the log of the forget gate */
          const vi on = (vi)(load(g + SLSTM_FORGET * Dp) == one) & (vi)(load(n + k) != zero);
          df = pick(on, own * load(g + SLSTM_TO_F * Dp), zero);
          di += pick(on, zero, own), own = pick(on, own, zero);
        }
        store(w->own + k, own);
      }
      if (!fresh[r]) {  /* not multiplied by a forget gate of 0: inf * 0 is NaN */
        const vf forget = load(g + SLSTM_FORGET * Dp);
        df += (dc * load(c + k) + dn * load(n + k)) * load(g + SLSTM_TO_F * Dp);
        dc_old = dc * forget, dn_old = dn * forget;
      }
      store(w->dc + k, dc_old), store(w->dn + k, dn_old);
      float *d = draw + r * 4 * Dp + e;
      store(d, di), store(d + Dp, df), store(d + 2 * Dp, dz), store(d + 3 * Dp, do_);
      bi += di, bf += df, bz += dz, bo += do_;
    }
    float *db = w->db + e;
    store(db, load(db) + bi), store(db + Dp, load(db + Dp) + bf);
    store(db + 2 * Dp, load(db + 2 * Dp) + bz), store(db + 3 * Dp, load(db + 3 * Dp) + bo);
  }
}

static void group_backward(const xl_slstm_backward_args *a, int64_t head, int64_t group,
                           const item_buffers *w) {
  const int64_t B = a->B, T = a->T, H = a->H, D = a->D, Dp = slstm_padded(D);
  const int64_t first = group * SLSTM_ROWS, left = B - first;
  const int64_t rows = left < SLSTM_ROWS ? left : SLSTM_ROWS, at = (first * H + head) * D;
  const slstm_saved s = slstm_saved_of((float *)a->saved, B, T, D, head, group);
  const int through = a->dcT || a->dnT || a->dmT;
  uint8_t fresh[SLSTM_ROWS];
  begin(a, w, &s, rows, at);
  for (int64_t end = T; end > 0;) {
    const int64_t start = (end - 1) / slstm_steps(rows) * slstm_steps(rows);
    for (int64_t t = end - 1; t >= start; t--) {
      float *draw = w->draw + (t - start) * rows * 4 * Dp;
      for (int64_t r = 0; r < rows; r++)
        fresh[r] = (a->reset && a->reset[(first + r) * T + t]) || (t == 0 && !a->has_state);
      step_backward(a, w, &s, head, first, rows, t, draw, fresh, through);
      if (t == 0 && !a->dh0) break;
      for (int g = 0; g < 4; g++)
        rows_product(rows, Dp, D, (strided){draw + g * Dp, 4 * Dp, 1}, w->Rt + g * Dp * Dp, Dp, w->dh, Dp,
                     g > 0);
      for (int64_t r = 0; r < rows; r++)
        if (fresh[r]) clear(Dp, w->dh + r * Dp);
    }
    rows_product(D, 4 * Dp, (end - start) * rows, (strided){s.h + start * rows * Dp, 1, Dp}, w->draw,
                 4 * Dp, w->dR, 4 * Dp, 1);
    slstm_fill_backward(a, (slstm_chunk){first, rows, head, start, end - start}, w->weight_t, w->draw,
                        w->dweight);
    end = start;
  }
  if (!a->dh0) return;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t e = 0; e < D; e += VW) {
      const int64_t k = r * Dp + e, to = at + r * H * D + e, count = D - e;
      vf dc = load(w->dc + k), dn = load(w->dn + k);
      vf c = fresh[r] ? broadcast(0) : load(s.c + k), n = fresh[r] ? broadcast(0) : load(s.n + k);
      store_left(a->dh0 + to, load(w->dh + k), count);
      store_left(a->dc0 + to, dc, count), store_left(a->dn0 + to, dn, count);
      store_left(a->dm0 + to, dc * c + dn * n + (through ? load(w->own + k) : broadcast(0)), count);
    }
}

typedef struct {
  const xl_slstm_backward_args *args;
  float *Rt, *weight_t, *items;
} backward_context;

static void transpose_head(int head, int worker, void *context) {
  (void)worker;
  const backward_context *w = context;
  const xl_slstm_backward_args *a = w->args;
  const int64_t D = a->D, Dp = slstm_padded(D);
  for (int64_t g = 0; g < 4; g++) {
    const int64_t at = (g * a->H + head) * D * D, to = (head * 4 + g) * Dp * Dp;
    if (D % VW) clear(Dp * Dp, w->Rt + to), clear(Dp * Dp, w->weight_t + to);
    transpose(D, D, a->R + at, D, w->Rt + to, Dp);
    if (a->weight) transpose(D, D, a->weight + at, D, w->weight_t + to, Dp);
  }
}

static item_buffers buffers_of(const backward_context *w, int64_t head, int64_t item) {
  const int64_t D = w->args->D, Dp = slstm_padded(D), each = SLSTM_ROWS * Dp, to = head * 4 * Dp * Dp;
  float *p = w->items + item * item_work(D);
  item_buffers b = {.Rt = w->Rt + to, .weight_t = w->weight_t + to, .dR = p};
  b.db = b.dR + D * 4 * Dp;
  b.dweight = b.db + 4 * Dp;
  b.dh = p + item_sums(D), b.dc = b.dh + each, b.dn = b.dc + each, b.own = b.dn + each;
  b.draw = b.own + each;
  return b;
}

static void backward_item(int item, int worker, void *context) {
  (void)worker;
  const backward_context *w = context;
  const xl_slstm_backward_args *a = w->args;
  const int64_t parts = slstm_parts(a->B), head = item / parts;
  const item_buffers b = buffers_of(w, head, item);
  clear(item_sums(a->D), b.dR);
  for (int64_t group = item % parts; group < slstm_groups(a->B); group += parts)
    group_backward(a, head, group, &b);
}

/* to [count] = the sum over a head's items, in order, of what lies `at` behind their dR */
static void sum_items(const backward_context *w, int64_t head, int64_t at, int64_t count, float *to) {
  const int64_t parts = slstm_parts(w->args->B);
  FOR_VECTORS(e, count, left) {
    vf sum = broadcast(0);
    for (int64_t part = 0; part < parts; part++)
      sum += load(buffers_of(w, head, head * parts + part).dR + at + e);
    store_left(to + e, sum, left);
  }
}

static void sum_head(int head, int worker, void *context) {
  (void)worker;
  const backward_context *w = context;
  const xl_slstm_backward_args *a = w->args;
  const int64_t D = a->D, Dp = slstm_padded(D), db = D * 4 * Dp, dweight = db + 4 * Dp;
  for (int64_t g = 0; g < 4; g++) {
    const int64_t to = (g * a->H + head) * D;
    if (a->db) sum_items(w, head, db + g * Dp, D, a->db + to);
    for (int64_t row = 0; row < D; row++) {
      sum_items(w, head, (row * 4 + g) * Dp, D, a->dR + (to + row) * D);
      if (a->dweight)
        sum_items(w, head, dweight + (g * D + row) * Dp, D, a->dweight + (to + row) * D);
    }
  }
}

int xl_slstm_backward(const xl_slstm_backward_args *a) {
  const int64_t D = a->D, Dp = slstm_padded(D);
  backward_context w = {.args = a, .Rt = a->work};
  w.weight_t = w.Rt + a->H * 4 * Dp * Dp;
  w.items = w.weight_t + a->H * 4 * Dp * Dp;
  xl_parallel_for((int)a->H, transpose_head, &w);
  xl_parallel_for((int)(a->H * slstm_parts(a->B)), backward_item, &w);
  xl_parallel_for((int)a->H, sum_head, &w);
  return 0;
}
