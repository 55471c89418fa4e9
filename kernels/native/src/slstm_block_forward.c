/* The sLSTM block forward; a step is a sequence of one. */
#include "slstm_block.h"

typedef struct {
  const xl_slstm_block_args *args;
  block_saved saved;
  float *taps;       /* [W][D], the first for the present step */
  float *up, *down;  /* packed, or null: few rows, which read the weights where they lie */
  float *pieces;     /* of each worker */
  float *scan;
} passes;

static int few_rows(const xl_slstm_block_args *a) { return block_rows(a) < FEW_ROWS; }

static passes cut(const xl_slstm_block_args *a, int64_t *bytes) {
  passes p = {.args = a};
  arena work = {(char *)a->work, 0}, kept = {(char *)a->saved, 0};
  p.saved = a->saved ? cut_saved(&kept, a, 1) : cut_saved(&work, a, 0);
  p.taps = take(&work, a->W * a->D);
  if (a->F && !few_rows(a)) {
    p.up = take(&work, packed_size(2 * a->F, a->D));
    p.down = take(&work, packed_size(a->D, a->F));
  }
  const int64_t few = few_rows_work(2 * a->F > a->D ? 2 * a->F : a->D, a->D > a->F ? a->D : a->F);
  if (a->F) p.pieces = take(&work, a->workers * (piece_size(a) + few));
  p.scan = take(&work, slstm_work_size(a->B, a->T, a->H, a->D / a->H));
  *bytes = work.used;
  return p;
}

int64_t xl_slstm_block_saved_bytes(const xl_slstm_block_args *a) {
  arena from = {0};
  cut_saved(&from, a, 1);
  return from.used;
}

/* `saved` and `work` are only asked whether they are null. */
int64_t xl_slstm_block_work_bytes(const xl_slstm_block_args *a) {
  int64_t bytes;
  xl_slstm_block_args sized = *a;
  sized.work = 0;
  cut(&sized, &bytes);
  return bytes;
}

/* u and c of one environment, and its inputs that the next call's window sees */
static void normalise_environment(int b, int worker, void *context) {
  (void)worker;
  const passes *p = context;
  const xl_slstm_block_args *a = p->args;
  const block_saved *s = &p->saved;
  const int64_t T = a->T, D = a->D, row = b * T, back = a->W - 1;
  for (int64_t r = row; r < row + T; r++) {
    row_moments(D, a->x + r * D, &s->mean[r], &s->inverse[r]);
    normalise_row(D, a->x + r * D, a->weights.norm, s->mean[r], s->inverse[r], s->u + r * D);
  }
  if (!a->W) return;
  const float *before = a->before.window ? a->before.window + b * back * D : 0;
  int32_t *seen = s->seen + row;
  s->kept[b] = (int32_t)window_seen(T, back, a->reset ? a->reset + row : 0, before != 0, seen);
  window_forward(T, D, back, s->u + row * D, before, seen, p->taps, a->weights.taps_bias,
                 s->c + row * D, s->gate + row * D);
  window_state(T, D, back, s->u + row * D, before, s->kept[b], a->after.window + b * back * D);
}

/* Heads are normed by themselves; what they give is added to x. */
static void add_heads(const passes *p, int64_t r, float *to) {
  const xl_slstm_block_args *a = p->args;
  const block_saved *s = &p->saved;
  const int64_t D = a->D, H = a->H, size = D / H;
  for (int64_t h = 0; h < H; h++) {
    const float *y = s->y + r * D + h * size;
    float *mean = s->head_mean + r * H + h, *inverse = s->head_inverse + r * H + h;
    row_moments(size, y, mean, inverse);
    normalise_row(size, y, a->weights.head_norm + h * size, *mean, *inverse, to + h * size);
  }
  FOR_VECTORS(i, D, left)
    store_left(to + i, load_left(to + i, left) + load_left(a->x + r * D + i, left), left);
}

static void feed_forward_piece(int piece, int worker, void *context) {
  const passes *p = context;
  const xl_slstm_block_args *a = p->args;
  const block_saved *s = &p->saved;
  const slstm_block_weights *w = &a->weights;
  const int64_t D = a->D, F = a->F, first = piece * (int64_t)BLOCK_ROWS, left = block_rows(a) - first;
  const int64_t rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
  if (!F) {
    for (int64_t r = first; r < first + rows; r++) add_heads(p, r, a->out + r * D);
    return;
  }
  const int64_t few = few_rows_work(2 * F > D ? 2 * F : D, D > F ? D : F);
  float *normed = p->pieces + worker * (piece_size(a) + few), *hidden = normed + BLOCK_ROWS * D;
  float *ff = s->ff ? s->ff + first * 2 * F : hidden + BLOCK_ROWS * F;
  float *work = normed + piece_size(a);
  for (int64_t r = first; r < first + rows; r++) {
    float *x2 = s->x2 + r * D;
    add_heads(p, r, x2);
    row_moments(D, x2, &s->mean2[r], &s->inverse2[r]);
    normalise_row(D, x2, w->ff_norm, s->mean2[r], s->inverse2[r], normed + (r - first) * D);
  }
  if (p->up) packed_product(rows, 2 * F, D, normed, D, p->up, ff, 2 * F, w->up_bias, 0);
  else few_rows_linear(rows, 2 * F, D, normed, D, w->up, ff, 2 * F, w->up_bias, 0, work);
  for (int64_t r = 0; r < rows; r++)
    FOR_VECTORS(i, F, n) {
      vf slope;
      const vf g = activate(a->activation, load_left(ff + r * 2 * F + i, n), &slope);
      store_left(hidden + r * F + i, g * load_left(ff + r * 2 * F + F + i, n), n);
    }
  float *out = a->out + first * D;
  const float *x2 = s->x2 + first * D;
  if (p->down) packed_product(rows, D, F, hidden, F, p->down, out, D, x2, D);
  else few_rows_linear(rows, D, F, hidden, F, w->down, out, D, x2, D, work);
  for (int64_t r = 0; r < (w->down_bias ? rows : 0); r++)
    FOR_VECTORS(i, D, n)
      store_left(out + r * D + i, load_left(out + r * D + i, n) + load_left(w->down_bias + i, n), n);
}

int xl_slstm_block_forward(const xl_slstm_block_args *a) {
  int64_t bytes;
  const passes p = cut(a, &bytes);
  const int64_t D = a->D, W = a->W, F = a->F;
  const slstm_block_weights *w = &a->weights;
  for (int64_t k = 0; k < W; k++)
    for (int64_t i = 0; i < D; i++) p.taps[k * D + i] = w->taps[i * W + W - 1 - k];
  if (p.up) {
    pack_matrix(2 * F, D, (matrix){w->up, D, 1}, p.up);
    pack_matrix(D, F, (matrix){w->down, F, 1}, p.down);
  }
  xl_parallel_for((int)a->B, normalise_environment, (void *)&p);
  const slstm_block_state *from = &a->before, *to = &a->after;
  const xl_slstm_forward_args scan = {
      .B = a->B, .T = a->T, .H = a->H, .D = D / a->H, .exponential = a->exponential,
      .convolved = p.saved.c, .normed = p.saved.u, .weight = w->input, .R = w->R, .b = w->b,
      .reset = a->reset, .h0 = from->h, .c0 = from->c, .n0 = from->n, .m0 = from->m, .y = p.saved.y,
      .hT = to->h, .cT = to->c, .nT = to->n, .mT = to->m, .saved = p.saved.cell, .work = p.scan};
  xl_slstm_forward(&scan);
  xl_parallel_for((int)block_pieces(a), feed_forward_piece, (void *)&p);
  return 0;
}
