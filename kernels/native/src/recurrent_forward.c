/* LSTM and GRU forward. */
#include "recurrent.h"

#include "recurrent_cell.h"

typedef struct {
  const xl_recurrent_args *args;
  recurrent_saved saved;
  float *bias;      /* [G H]: of an LSTM both, of a GRU that of x */
  float *ih, *hh;   /* packed, or null: few rows, which read the weights where they lie */
  float *groups;    /* of each group: h and c, what h brings to the gates */
  float *few;       /* of each worker */
} passes;

static int64_t group_size(const xl_recurrent_args *a) { return RECURRENT_ROWS * 6 * a->H; }
static int64_t few_size(const xl_recurrent_args *a) {
  return few_rows_work(4 * a->H, a->I > a->H ? a->I : a->H);
}

static passes cut(const xl_recurrent_args *a, int64_t *bytes) {
  passes p = {.args = a};
  arena work = {(char *)a->work, 0}, kept = {(char *)a->saved, 0};
  p.saved = cut_recurrent(a->saved ? &kept : &work, a);
  p.bias = take(&work, 4 * a->H);
  if (a->B * a->T >= FEW_ROWS) p.ih = take(&work, packed_size(gate_width(a), a->I));
  if (packs_hh(a)) p.hh = take(&work, packed_size(gate_width(a), a->H));
  p.groups = take(&work, recurrent_groups(a) * group_size(a));
  p.few = take(&work, a->workers * few_size(a));
  *bytes = work.used;
  return p;
}

int64_t xl_recurrent_saved_bytes(const xl_recurrent_args *a) {
  arena from = {0};
  cut_recurrent(&from, a);
  return from.used;
}

/* `saved` is only asked whether it is null. */
int64_t xl_recurrent_work_bytes(const xl_recurrent_args *a) {
  int64_t bytes;
  xl_recurrent_args sized = *a;
  sized.work = 0;
  cut(&sized, &bytes);
  return bytes;
}

static void input_piece(int piece, int worker, void *context) {
  const passes *p = context;
  const xl_recurrent_args *a = p->args;
  const int64_t first = piece * (int64_t)RECURRENT_PIECE, left = a->B * a->T - first;
  const int64_t rows = left < RECURRENT_PIECE ? left : RECURRENT_PIECE, G = gate_width(a);
  const float *x = a->x + first * a->I;
  float *to = p->saved.gates + first * 4 * a->H;
  if (p->ih) packed_product(rows, G, a->I, x, a->I, p->ih, to, 4 * a->H, p->bias, 0);
  else
    few_rows_linear(rows, G, a->I, x, a->I, a->w_ih, to, 4 * a->H, p->bias, 0,
                    p->few + worker * few_size(a));
}

static void forward_group(int group, int worker, void *context) {
  const passes *p = context;
  const xl_recurrent_args *a = p->args;
  const int64_t T = a->T, H = a->H, G = gate_width(a), first = group * recurrent_rows(a);
  const int64_t left = a->B - first, rows = left < recurrent_rows(a) ? left : recurrent_rows(a);
  float *h = p->groups + group * group_size(a), *c = h + RECURRENT_ROWS * H;
  float *of_h = c + RECURRENT_ROWS * H, *few = p->few + worker * few_size(a);
  const size_t bytes = (size_t)H * sizeof(float);
  for (int64_t r = 0; r < rows; r++) {
    const int64_t at = (first + r) * a->stride;
    if (a->h0) memcpy(h + r * H, a->h0 + at, bytes);
    else memset(h + r * H, 0, bytes);
    if (a->c0) memcpy(c + r * H, a->c0 + at, bytes);
    else memset(c + r * H, 0, bytes);
  }
  for (int64_t t = 0; t < T; t++) {
    for (int64_t r = 0; r < rows; r++)
      if (a->reset && a->reset[(first + r) * T + t]) memset(h + r * H, 0, bytes), memset(c + r * H, 0, bytes);
    float *gates = p->saved.gates + (first * T + t) * 4 * H;
    const float *in = a->gru ? a->b_hh : gates;
    const int64_t ld_in = a->gru ? 0 : T * 4 * H;
    if (p->hh) packed_product(rows, G, H, h, H, p->hh, of_h, G, in, ld_in);
    else few_rows_linear(rows, G, H, h, H, a->w_hh, of_h, G, in, ld_in, few);
    for (int64_t r = 0; r < rows; r++) {
      const int64_t row = (first + r) * T + t;
      float *kept = p->saved.gates + row * 4 * H;
      if (a->gru) gru_row(H, kept, of_h + r * G, h + r * H);
      else lstm_row(H, of_h + r * G, kept, c + r * H, h + r * H, p->saved.c + row * H);
      memcpy(a->y + row * H, h + r * H, bytes);
    }
  }
  for (int64_t r = 0; r < rows; r++) {
    memcpy(a->hT + (first + r) * a->stride, h + r * H, bytes);
    if (!a->gru) memcpy(a->cT + (first + r) * a->stride, c + r * H, bytes);
  }
}

int xl_recurrent_forward(const xl_recurrent_args *a) {
  int64_t bytes;
  const passes p = cut(a, &bytes);
  const int64_t G = gate_width(a);
  for (int64_t k = 0; k < G; k++)
    p.bias[k] = (a->b_ih ? a->b_ih[k] : 0) + (a->b_hh && !a->gru ? a->b_hh[k] : 0);
  if (p.ih) pack_matrix(G, a->I, (matrix){a->w_ih, a->I, 1}, p.ih);
  if (p.hh) pack_matrix(G, a->H, (matrix){a->w_hh, a->H, 1}, p.hh);
  xl_parallel_for((int)recurrent_pieces(a), input_piece, (void *)&p);
  xl_parallel_for((int)recurrent_groups(a), forward_group, (void *)&p);
  return 0;
}
