/* The sLSTM block backward: the passes of the forward in reverse order. */
#include "slstm_block.h"
#include "slstm_vectors.h"

/* Gradients that are sums over rows: of each part, then of all. */
typedef struct {
  float *norm, *taps, *taps_bias, *head_norm, *ff_norm, *up_bias, *down_bias; /* taps [W][D] */
} row_sums;

typedef struct {
  const xl_slstm_block_backward_args *args;
  block_saved saved;
  float *taps;
  float *up, *down;                   /* packed for the products backward */
  float *sums;                        /* of every part */
  float *normed, *hidden, *dff;       /* [R, D], [R, F], [R, 2 F]: factors of up's and down's */
  float *dy, *dconvolved, *dnormed;   /* [R, D] */
  float *pieces, *products;           /* of each worker, of each slice */
  float *scan;
} passes;

static int64_t sums_size(const xl_slstm_block_args *a) {
  return ROUND_UP((5 + a->W) * a->D + 2 * a->F, 16);
}

static row_sums sums_of(const passes *p, int64_t part) {
  const xl_slstm_block_args *a = &p->args->forward;
  row_sums s = {.norm = p->sums + part * sums_size(a)};
  s.taps = s.norm + a->D, s.taps_bias = s.taps + a->W * a->D, s.head_norm = s.taps_bias + a->D;
  s.ff_norm = s.head_norm + a->D, s.down_bias = s.ff_norm + a->D, s.up_bias = s.down_bias + a->D;
  return s;
}

static passes cut(const xl_slstm_block_backward_args *args, int64_t *bytes) {
  const xl_slstm_block_args *a = &args->forward;
  const int64_t R = block_rows(a), D = a->D, F = a->F;
  passes p = {.args = args};
  arena work = {(char *)args->work, 0}, kept = {(char *)a->saved, 0};
  p.saved = cut_saved(&kept, a, 1);
  p.taps = take(&work, a->W * D);
  p.sums = take(&work, BLOCK_PARTS * sums_size(a));
  p.dy = take(&work, R * D), p.dnormed = take(&work, R * D);
  p.dconvolved = a->W ? take(&work, R * D) : p.dnormed;
  if (F) {
    p.up = take(&work, packed_size(D, 2 * F)), p.down = take(&work, packed_size(F, D));
    p.normed = take(&work, R * D), p.hidden = take(&work, R * F), p.dff = take(&work, R * 2 * F);
    p.pieces = take(&work, a->workers * BLOCK_ROWS * (D + F));
    p.products = take(&work, a->workers * (gemm_work(F) + gemm_work(D)));
  }
  p.scan = take(&work, slstm_backward_work_size(a->B, a->T, a->H, D / a->H));
  *bytes = work.used;
  return p;
}

int64_t xl_slstm_block_backward_work_bytes(const xl_slstm_block_args *a) {
  int64_t bytes;
  xl_slstm_block_backward_args args = {.forward = *a};
  cut(&args, &bytes);
  return bytes;
}

/* the share of `count` things that falls to one of so many parts, in a row */
static int64_t share(int64_t part, int64_t parts, int64_t count) { return part * count / parts; }
static int64_t parts_of(int64_t count) { return count < BLOCK_PARTS ? count : BLOCK_PARTS; }

/* Through down, the activation, up and the norm: dx holds the gradient of x2 then. */
static void feed_forward_rows(const passes *p, const row_sums *sums, int64_t first, int64_t rows,
                              float *work) {
  const xl_slstm_block_args *a = &p->args->forward;
  const block_saved *s = &p->saved;
  const slstm_block_weights *w = &a->weights;
  const int64_t D = a->D, F = a->F;
  const float *dout = p->args->dout + first * D, *ff = s->ff + first * 2 * F;
  float *dhidden = work, *dnormed = work + BLOCK_ROWS * F;
  float *hidden = p->hidden + first * F, *dff = p->dff + first * 2 * F;
  packed_product(rows, F, D, dout, D, p->down, dhidden, F, 0, 0);
  for (int64_t r = 0; r < rows; r++, ff += 2 * F, dff += 2 * F, hidden += F)
    FOR_VECTORS(i, F, n) {
      vf slope;
      const vf g = activate(a->activation, load_left(ff + i, n), &slope);
      const vf up = load_left(ff + F + i, n), d = load_left(dhidden + r * F + i, n);
      store_left(hidden + i, g * up, n);
      const vf dgate = d * up * slope, dup = d * g;
      store_left(dff + i, dgate, n), store_left(dff + F + i, dup, n);
      if (!w->up_bias) continue;
      float *to = sums->up_bias + i;
      store_left(to, load_left(to, n) + dgate, n), store_left(to + F, load_left(to + F, n) + dup, n);
    }
  packed_product(rows, D, 2 * F, p->dff + first * 2 * F, 2 * F, p->up, dnormed, D, 0, 0);
  for (int64_t r = 0; r < rows; r++) {
    const int64_t row = first + r;
    const float *x2 = s->x2 + row * D;
    normalise_row(D, x2, w->ff_norm, s->mean2[row], s->inverse2[row], p->normed + row * D);
    normalise_row_backward(D, x2, w->ff_norm, s->mean2[row], s->inverse2[row], dnormed + r * D,
                           p->args->dx + row * D, sums->ff_norm);
    for (int64_t i = 0; w->down_bias && i < D; i++) sums->down_bias[i] += dout[r * D + i];
  }
}

static void head_norm_row(const passes *p, const row_sums *sums, int64_t r) {
  const xl_slstm_block_args *a = &p->args->forward;
  const int64_t D = a->D, H = a->H, size = D / H;
  float *dy = p->dy + r * D;
  clear(D, dy);
  for (int64_t h = 0; h < H; h++)
    normalise_row_backward(size, p->saved.y + r * D + h * size, a->weights.head_norm + h * size,
                           p->saved.head_mean[r * H + h], p->saved.head_inverse[r * H + h],
                           p->args->dx + r * D + h * size, dy + h * size, sums->head_norm + h * size);
}

static void rows_backward(int part, int worker, void *context) {
  const passes *p = context;
  const xl_slstm_block_args *a = &p->args->forward;
  const int64_t pieces = block_pieces(a), parts = parts_of(pieces), D = a->D;
  const row_sums sums = sums_of(p, part);
  for (int64_t piece = share(part, parts, pieces); piece < share(part + 1, parts, pieces); piece++) {
    const int64_t first = piece * BLOCK_ROWS, left = block_rows(a) - first;
    const int64_t rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
    memcpy(p->args->dx + first * D, p->args->dout + first * D, (size_t)(rows * D) * sizeof(float));
    if (a->F) feed_forward_rows(p, &sums, first, rows, p->pieces + worker * BLOCK_ROWS * (D + a->F));
    for (int64_t r = first; r < first + rows; r++) head_norm_row(p, &sums, r);
  }
}

/* A slice of the rows of down's and up's gradients; each number is one sum in order, as in whole. */
static void feed_forward_weights(int slice, int worker, void *context) {
  (void)worker;
  const passes *p = context;
  const xl_slstm_block_args *a = &p->args->forward;
  const slstm_block_weights *g = &p->args->dweights;
  const int64_t R = block_rows(a), D = a->D, F = a->F, n = a->workers;
  float *work = p->products + slice * (gemm_work(F) + gemm_work(D));
  int64_t from = share(slice, n, D), rows = share(slice + 1, n, D) - from;
  if (R == 0) clear(rows * F, g->down + from * F);
  gemm(rows, F, R, (matrix){p->args->dout + from, D, 1}, (matrix){p->hidden, F, 0}, g->down + from * F,
       F, 0, 0, work);
  from = share(slice, n, 2 * F), rows = share(slice + 1, n, 2 * F) - from;
  if (R == 0) clear(rows * D, g->up + from * D);
  gemm(rows, D, R, (matrix){p->dff + from, 2 * F, 1}, (matrix){p->normed, D, 0}, g->up + from * D, D, 0,
       0, work);
}

/* Through the convolution and the norm, environment by environment. */
static void environments_backward(int part, int worker, void *context) {
  (void)worker;
  const passes *p = context;
  const xl_slstm_block_args *a = &p->args->forward;
  const block_saved *s = &p->saved;
  const int64_t T = a->T, D = a->D, back = a->W - 1, parts = parts_of(a->B);
  const row_sums sums = sums_of(p, part);
  const slstm_block_state *after = &p->args->dafter, *before = &p->args->dbefore;
  for (int64_t b = share(part, parts, a->B); b < share(part + 1, parts, a->B); b++) {
    const int64_t row = b * T, at = row * D;
    if (a->W)
      window_backward(T, D, back, s->u + at, a->before.window ? a->before.window + b * back * D : 0,
                      s->seen + row, s->kept[b], p->taps, s->c + at, s->gate + at, p->dconvolved + at,
                      after->window ? after->window + b * back * D : 0, p->dnormed + at, sums.taps,
                      sums.taps_bias, before->window ? before->window + b * back * D : 0);
    for (int64_t r = row; r < row + T; r++)
      normalise_row_backward(D, a->x + r * D, a->weights.norm, s->mean[r], s->inverse[r],
                             p->dnormed + r * D, p->args->dx + r * D, sums.norm);
  }
}

/* The parts, summed in order into the first. */
static row_sums sum_parts(const passes *p) {
  const xl_slstm_block_args *a = &p->args->forward;
  for (int64_t part = 1; part < BLOCK_PARTS; part++)
    for (int64_t i = 0; i < sums_size(a); i += VW)
      store(p->sums + i, load(p->sums + i) + load(p->sums + part * sums_size(a) + i));
  return sums_of(p, 0);
}

static void hand_out_sums(const passes *p) {
  const xl_slstm_block_args *a = &p->args->forward;
  const slstm_block_weights *g = &p->args->dweights;
  const int64_t D = a->D, W = a->W, F = a->F;
  const row_sums s = sum_parts(p);
  const size_t row = (size_t)D * sizeof(float);
  memcpy(g->norm, s.norm, row), memcpy(g->head_norm, s.head_norm, row);
  for (int64_t k = 0; k < W; k++)
    for (int64_t i = 0; i < D; i++) g->taps[i * W + W - 1 - k] = s.taps[k * D + i];
  if (W) memcpy(g->taps_bias, s.taps_bias, row);
  if (F) memcpy(g->ff_norm, s.ff_norm, row);
  if (F && g->up_bias) memcpy(g->up_bias, s.up_bias, (size_t)(2 * F) * sizeof(float));
  if (F && g->down_bias) memcpy(g->down_bias, s.down_bias, row);
}

int xl_slstm_block_backward(const xl_slstm_block_backward_args *args) {
  const xl_slstm_block_args *a = &args->forward;
  int64_t bytes;
  const passes p = cut(args, &bytes);
  const int64_t D = a->D, W = a->W, F = a->F;
  for (int64_t k = 0; k < W; k++)
    for (int64_t i = 0; i < D; i++) p.taps[k * D + i] = a->weights.taps[i * W + W - 1 - k];
  if (F) {
    pack_matrix(D, 2 * F, (matrix){a->weights.up, D, 0}, p.up);
    pack_matrix(F, D, (matrix){a->weights.down, F, 0}, p.down);
  }
  clear(BLOCK_PARTS * sums_size(a), p.sums);
  xl_parallel_for((int)parts_of(block_pieces(a)), rows_backward, (void *)&p);
  if (F) xl_parallel_for((int)a->workers, feed_forward_weights, (void *)&p);
  const slstm_block_state *after = &args->dafter, *before = &args->dbefore;
  const xl_slstm_backward_args scan = {
      .B = a->B, .T = a->T, .H = a->H, .D = D / a->H, .exponential = a->exponential,
      .has_state = a->before.h != 0, .convolved = p.saved.c, .normed = p.saved.u,
      .weight = a->weights.input, .R = a->weights.R, .reset = a->reset, .dy = p.dy, .dhT = after->h,
      .dcT = after->c, .dnT = after->n, .dmT = after->m, .saved = p.saved.cell,
      .dconvolved = p.dconvolved, .dnormed = p.dnormed, .dweight = args->dweights.input,
      .dR = args->dweights.R, .db = args->dweights.b, .dh0 = before->h, .dc0 = before->c,
      .dn0 = before->n, .dm0 = before->m, .work = p.scan};
  xl_slstm_backward(&scan);
  xl_parallel_for((int)parts_of(a->B), environments_backward, (void *)&p);
  hand_out_sums(&p);
  return 0;
}
