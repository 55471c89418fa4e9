/* LSTM and GRU backward: groups go back through time, then come the products without time. */
#include "recurrent.h"

typedef struct {
  const xl_recurrent_backward_args *args;
  recurrent_saved saved;
  float *ih, *hh;       /* packed for the products backward */
  float *dx_gates;      /* [R][G H]: gradients of what x brings to the gates */
  float *dh_gates;      /* of what h brings: the same of an LSTM, of a GRU [R][G H] of its own */
  float *before;        /* [R][H]: h before each step, zero where a reset is */
  float *groups;        /* of each group: dh, dc */
  float *products;      /* of each slice */
} passes;

static passes cut(const xl_recurrent_backward_args *args, int64_t *bytes) {
  const xl_recurrent_args *a = &args->forward;
  const int64_t R = a->B * a->T, H = a->H, G = gate_width(a);
  passes p = {.args = args};
  arena work = {(char *)args->work, 0}, kept = {(char *)a->saved, 0};
  p.saved = cut_recurrent(&kept, a);
  p.ih = take(&work, packed_size(a->I, G)), p.hh = take(&work, packed_size(H, G));
  p.dx_gates = take(&work, R * G);
  p.dh_gates = a->gru ? take(&work, R * G) : p.dx_gates;
  p.before = take(&work, R * H);
  p.groups = take(&work, recurrent_groups(a) * RECURRENT_ROWS * 2 * H);
  p.products = take(&work, a->workers * (gemm_work(a->I) + gemm_work(H)));
  *bytes = work.used;
  return p;
}

int64_t xl_recurrent_backward_work_bytes(const xl_recurrent_args *a) {
  int64_t bytes;
  xl_recurrent_backward_args args = {.forward = *a};
  cut(&args, &bytes);
  return bytes;
}

/* dh of the step becomes what it leaves to the step before, without the product; dc likewise */
static void lstm_row(int64_t H, const float *gates, const float *c, const float *c_old, const float *dy,
                     float *dh, float *dc, float *d) {
  const vf zero = broadcast(0), one = broadcast(1);
  FOR_VECTORS(e, H, left) {
    const vf i = load_left(gates + e, left), f = load_left(gates + H + e, left);
    const vf g = load_left(gates + 2 * H + e, left), o = load_left(gates + 3 * H + e, left);
    const vf squashed = vtanh(load_left(c + e, left));
    vf out = load_left(dh + e, left);
    if (dy) out += load_left(dy + e, left);
    const vf inner = load_left(dc + e, left) + out * o * (one - squashed * squashed);
    store_left(d + e, inner * g * i * (one - i), left);
    store_left(d + H + e, c_old ? inner * load_left(c_old + e, left) * f * (one - f) : zero, left);
    store_left(d + 2 * H + e, inner * i * (one - g * g), left);
    store_left(d + 3 * H + e, out * squashed * o * (one - o), left);
    store_left(dc + e, c_old ? inner * f : zero, left);
    store_left(dh + e, zero, left);
  }
}

static void gru_row(int64_t H, const float *gates, const float *h_old, const float *dy, float *dh,
                    float *of_x, float *of_h) {
  const vf one = broadcast(1);
  FOR_VECTORS(e, H, left) {
    const vf r = load_left(gates + e, left), z = load_left(gates + H + e, left);
    const vf n = load_left(gates + 2 * H + e, left), to_n = load_left(gates + 3 * H + e, left);
    vf out = load_left(dh + e, left);
    if (dy) out += load_left(dy + e, left);
    const vf dn = out * (one - z) * (one - n * n), dr = dn * to_n * r * (one - r);
    const vf dz = out * (load_left(h_old + e, left) - n) * z * (one - z);
    store_left(of_x + e, dr, left), store_left(of_h + e, dr, left);
    store_left(of_x + H + e, dz, left), store_left(of_h + H + e, dz, left);
    store_left(of_x + 2 * H + e, dn, left), store_left(of_h + 2 * H + e, dn * r, left);
    store_left(dh + e, out * z, left);
  }
}

static void backward_group(int group, int worker, void *context) {
  (void)worker;
  const passes *p = context;
  const xl_recurrent_backward_args *args = p->args;
  const xl_recurrent_args *a = &args->forward;
  const int64_t T = a->T, H = a->H, G = gate_width(a), first = group * recurrent_rows(a);
  const int64_t left = a->B - first, rows = left < recurrent_rows(a) ? left : recurrent_rows(a);
  float *dh = p->groups + group * RECURRENT_ROWS * 2 * H, *dc = dh + RECURRENT_ROWS * H;
  const size_t bytes = (size_t)H * sizeof(float), all = (size_t)rows * bytes;
  if (args->dhT) memcpy(dh, args->dhT + first * H, all);
  else memset(dh, 0, all);
  if (args->dcT) memcpy(dc, args->dcT + first * H, all);
  else memset(dc, 0, all);
  for (int64_t t = T - 1; t >= 0; t--) {
    for (int64_t r = 0; r < rows; r++) {
      const int64_t row = (first + r) * T + t, at = (first + r) * a->stride;
      const int fresh = (a->reset && a->reset[row]) || (t == 0 && !a->h0);
      float *before = p->before + row * H;
      if (fresh) memset(before, 0, bytes);
      else memcpy(before, t > 0 ? a->y + (row - 1) * H : a->h0 + at, bytes);
      const float *gates = p->saved.gates + row * 4 * H, *dy = args->dy ? args->dy + row * H : 0;
      if (a->gru)
        gru_row(H, gates, before, dy, dh + r * H, p->dx_gates + row * G, p->dh_gates + row * G);
      else {
        const float *c = p->saved.c + row * H, *c_old = fresh ? 0 : t > 0 ? c - H : a->c0 + at;
        lstm_row(H, gates, c, c_old, dy, dh + r * H, dc + r * H, p->dx_gates + row * G);
      }
    }
    packed_product(rows, H, G, p->dh_gates + (first * T + t) * G, T * G, p->hh, dh, H, dh, H);
    for (int64_t r = 0; r < rows; r++)
      if (a->reset && a->reset[(first + r) * T + t]) memset(dh + r * H, 0, bytes);
  }
  if (args->dh0) memcpy(args->dh0 + first * H, dh, all);
  if (args->dc0) memcpy(args->dc0 + first * H, dc, all);
}

static void input_piece(int piece, int worker, void *context) {
  (void)worker;
  const passes *p = context;
  const xl_recurrent_args *a = &p->args->forward;
  const int64_t first = piece * (int64_t)RECURRENT_PIECE, left = a->B * a->T - first;
  const int64_t rows = left < RECURRENT_PIECE ? left : RECURRENT_PIECE, G = gate_width(a);
  packed_product(rows, a->I, G, p->dx_gates + first * G, G, p->ih, p->args->dx + first * a->I, a->I, 0,
                 0);
}

/* to [count] = sums of the columns of d [R, ld] */
static void sum_columns(int64_t R, int64_t count, const float *d, int64_t ld, float *to) {
  FOR_VECTORS(e, count, left) {
    vf sum = broadcast(0);
    for (int64_t r = 0; r < R; r++) sum += load_left(d + r * ld + e, left);
    store_left(to + e, sum, left);
  }
}

/* A slice of the rows of the weights' gradients; each number is one sum in order, as in whole. */
static void weights_slice(int slice, int worker, void *context) {
  (void)worker;
  const passes *p = context;
  const xl_recurrent_backward_args *args = p->args;
  const xl_recurrent_args *a = &args->forward;
  const int64_t R = a->B * a->T, G = gate_width(a), I = a->I, H = a->H;
  const int64_t from = slice * G / a->workers, rows = (slice + 1) * G / a->workers - from;
  float *work = p->products + slice * (gemm_work(I) + gemm_work(H));
  float *ih = args->dw_ih + from * I, *hh = args->dw_hh + from * H;
  if (R == 0) memset(ih, 0, (size_t)(rows * I) * sizeof(float)), memset(hh, 0, (size_t)(rows * H) * sizeof(float));
  gemm(rows, I, R, (matrix){p->dx_gates + from, G, 1}, (matrix){a->x, I, 0}, ih, I, 0, 0, work);
  gemm(rows, H, R, (matrix){p->dh_gates + from, G, 1}, (matrix){p->before, H, 0}, hh, H, 0, 0, work);
  if (args->db_ih) sum_columns(R, rows, p->dx_gates + from, G, args->db_ih + from);
  if (args->db_hh) sum_columns(R, rows, p->dh_gates + from, G, args->db_hh + from);
}

int xl_recurrent_backward(const xl_recurrent_backward_args *args) {
  const xl_recurrent_args *a = &args->forward;
  int64_t bytes;
  const passes p = cut(args, &bytes);
  const int64_t G = gate_width(a);
  pack_matrix(a->I, G, (matrix){a->w_ih, a->I, 0}, p.ih);
  pack_matrix(a->H, G, (matrix){a->w_hh, a->H, 0}, p.hh);
  xl_parallel_for((int)recurrent_groups(a), backward_group, (void *)&p);
  xl_parallel_for((int)recurrent_pieces(a), input_piece, (void *)&p);
  xl_parallel_for((int)a->workers, weights_slice, (void *)&p);
  return 0;
}
