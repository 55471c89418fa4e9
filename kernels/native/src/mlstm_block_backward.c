/* The mLSTM block over whole sequences, backward. The passes, R = B * T rows:

   1. the norm once more, and dy = dout times down
   2. the middle, sequence by sequence (mlstm_block_sequence.c), in groups that share gradients
   3. through up and through the norm: dx
   4. sums over all rows: the gradients of up, down, norm and biases

   As in the forward, a worker takes its sequences through 1 to 3 where there are enough of them. */
#include "mlstm_block_backward.h"

static char *scratch_of(const backward_pass *f, int worker) {
  return f->scratch + worker * f->scratch_each;
}

static float *gemm_scratch(const backward_pass *f, int worker) {
  arena from = {scratch_of(f, worker), 0};
  return cut_gemm(&from, f->a);
}

static void run_group(int index, int worker, void *context) {
  const backward_pass *f = context;
  const mlstm_block_arguments *a = f->a;
  arena from = {scratch_of(f, worker), 0};
  const backward_scratch w = cut_backward_scratch(&from, a);
  memset(f->grads[index].all, 0, (size_t)f->grads[index].size * sizeof(float));
  for (int64_t b = index * a->B / f->groups; b < (index + 1) * a->B / f->groups; b++)
    sequence_backward(f, b, f->grads + index, w);
}

static void add(int64_t n, float *to, const float *x) {
  FOR_VECTORS(i, n, left) store_left(to + i, load_left(to + i, left) + load_left(x + i, left), left);
}

static void write(float *to, int64_t n, const float *from) {
  if (to) memcpy(to, from, (size_t)n * sizeof(float));
}

/* the weights of q, k, v and of the gates out of those of the folded gates, for a share of the
   blocks */
static void unfold_gates(int index, int worker, void *context) {
  (void)worker;
  const backward_pass *f = context;
  const mlstm_block_arguments *a = f->a;
  const mlstm_sizes z = f->z;
  const int64_t I = a->I, S = a->S, G = 2 * a->H, ldg = z.ldg;
  const small_grads g = f->grads[0];
  const mlstm_weights *w = &a->weights, *d = &a->dweights;
  for (int64_t o = 3 * I / S * index / GROUPS * S; o < 3 * I / S * (index + 1) / GROUPS * S; o++) {
    /* o: the output; its inputs are the rows i of its block */
    const int64_t part = o / I, block = o % I / S * S;
    const float *gate = f->p.gate + o * ldg, *bias = w->qkv_bias ? w->qkv_bias + o : 0;
    const float *fold = (part < 2 ? g.fold_c : g.fold_u) + block * ldg;
    const float *qkv = w->qkv + (part * I + block) * S + o % S;
    for (int64_t e = 0; e < ldg; e += VW) {
      vf sum = bias ? broadcast(*bias) * load(g.gates + e) : broadcast(0);
      for (int64_t i = 0; i < S; i++) sum += broadcast(qkv[i * S]) * load(fold + i * ldg + e);
      store(f->dgate + o * ldg + e, sum);
    }
    for (int64_t i = 0; d->qkv && i < S; i++) {
      const int64_t at = (part * I + block + i) * S + o % S;
      float sum = a->S == 4 ? g.lanes[(part * 4 + i) * z.inner + block + o % S] : g.lanes[at];
      for (int64_t e = 0; e < G; e++) sum += fold[i * ldg + e] * gate[e];
      d->qkv[at] = sum;
    }
    if (!d->qkv_bias) continue;
    float sum = g.qkv_bias[part * z.inner + o % I];
    for (int64_t e = 0; e < G; e++) sum += g.gates[e] * gate[e];
    d->qkv_bias[o] = sum;
  }
}

static void write_small_grads(const backward_pass *f) {
  const mlstm_block_arguments *a = f->a;
  const mlstm_weights *d = &a->dweights;
  const small_grads g = f->grads[0];
  xl_parallel_for(GROUPS, unfold_gates, (void *)f);
  if (d->gate) transpose(3 * a->I, 2 * a->H, f->dgate, f->z.ldg, d->gate, 3 * a->I);
  write(d->gate_bias, 2 * a->H, g.gates);
  write(d->head_norm, a->I, g.head_norm);
  write(d->skip, a->I, g.skip);
  if (a->W) write(d->conv_bias, a->I, g.conv_bias);
  if (a->W && d->conv) transpose(a->W, a->I, g.taps, f->z.inner, d->conv, a->W);
}

/* sums over rows, in order */
static void add_rows(int64_t R, int64_t n, const float *x, int64_t ld, float *to) {
  if (!to) return;
  memset(to, 0, (size_t)n * sizeof(float));
  for (int64_t r = 0; r < R; r++) add(n, to, x + r * ld);
}

/* 1, for the rows from r0 to r1 */
static void rows_before(const backward_pass *f, int64_t r0, int64_t r1, float *work) {
  const mlstm_block_arguments *a = f->a;
  const int64_t D = a->D, ldi = f->z.ldi;
  for (int64_t r = r0; r < r1; r++)
    normalise_row(D, a->x + r * D, a->weights.norm, f->s.mean[r], f->s.inverse[r],
                  f->normed + r * D);
  own_gemm(r1 - r0, a->I, D, (matrix){a->dout + r0 * D, D, 0}, (matrix){a->weights.down, a->I, 0},
           f->dy + r0 * ldi, ldi, 0, 0, work);
}

/* 3, for these rows, up to the norm */
static void rows_behind(const backward_pass *f, int64_t r0, int64_t r1, float *work) {
  const mlstm_block_arguments *a = f->a;
  const int64_t D = a->D, I = a->I, ldu = f->z.ldu;
  float *dnormed = f->dnormed + r0 * D;
  for (int64_t half = 0; half < 2; half++)
    own_gemm(r1 - r0, D, I, (matrix){f->du + r0 * ldu + half * f->z.inner, ldu, 0},
             (matrix){a->weights.up + half * I * D, D, 0}, dnormed, D, half ? dnormed : 0, D, work);
}

static void norm_group(int index, int worker, void *context) {
  (void)worker;
  const backward_pass *f = context;
  const mlstm_block_arguments *a = f->a;
  const int64_t D = a->D, from = share_of(f->z.R, index, GROUPS);
  const int64_t end = share_of(f->z.R, index + 1, GROUPS);
  float *dnorm = f->dnorm + index * ROUND_UP(D, WIDEST);
  memset(dnorm, 0, (size_t)D * sizeof(float));
  for (int64_t r = from; r < end; r++) {
    memcpy(a->dx + r * D, a->dout + r * D, (size_t)D * sizeof(float));
    normalise_row_backward(D, a->x + r * D, a->weights.norm, f->s.mean[r], f->s.inverse[r],
                           f->dnormed + r * D, a->dx + r * D, dnorm);
  }
  f->broken[index] = !all_finite((end - from) * D, a->dx + from * D);
}

static void run_before(int index, int worker, void *context) {
  const backward_pass *f = context;
  const int64_t R = f->z.R, workers = f->a->workers;
  rows_before(f, share_of(R, index, workers), share_of(R, index + 1, workers),
              gemm_scratch(f, worker));
}

static void run_behind(int index, int worker, void *context) {
  const backward_pass *f = context;
  const int64_t R = f->z.R, workers = f->a->workers;
  rows_behind(f, share_of(R, index, workers), share_of(R, index + 1, workers),
              gemm_scratch(f, worker));
}

/* 1 to 3 for a worker's sequences, where its groups of sequences and of rows are the same rows */
static void run_share(int index, int worker, void *context) {
  const backward_pass *f = context;
  const int64_t R = f->z.R, workers = f->a->workers;
  const int64_t r0 = share_of(R, index, workers), r1 = share_of(R, index + 1, workers);
  rows_before(f, r0, r1, gemm_scratch(f, worker));
  for (int64_t g = share_of(f->groups, index, workers); g < share_of(f->groups, index + 1, workers);
       g++)
    run_group((int)g, worker, context);
  rows_behind(f, r0, r1, gemm_scratch(f, worker));
  for (int64_t g = share_of(GROUPS, index, workers); g < share_of(GROUPS, index + 1, workers); g++)
    norm_group((int)g, worker, context);
}

/* 4: a worker's rows of the large weights */
static void weight_share(int index, int worker, void *context) {
  const backward_pass *f = context;
  const mlstm_block_arguments *a = f->a;
  const mlstm_sizes z = f->z;
  const mlstm_weights *d = &a->dweights;
  const int64_t D = a->D, I = a->I, workers = a->workers;
  const int64_t o0 = share_of(D, index, workers), o1 = share_of(D, index + 1, workers);
  const int64_t i0 = share_of(I, index, workers), i1 = share_of(I, index + 1, workers);
  float *work = gemm_scratch(f, worker);
  if (d->down)
    own_gemm(o1 - o0, I, z.R, (matrix){a->dout + o0, D, 1}, (matrix){f->y, z.ldi, 0},
             d->down + o0 * I, I, 0, 0, work);
  for (int64_t half = 0; d->up && half < 2; half++)
    own_gemm(i1 - i0, D, z.R, (matrix){f->du + half * z.inner + i0, z.ldu, 1},
             (matrix){f->normed, D, 0}, d->up + (half * I + i0) * D, D, 0, 0, work);
}

static int64_t cut_backward(backward_pass *f, char *base) {
  const mlstm_block_arguments *a = f->a;
  const mlstm_sizes z = f->z;
  arena from = {base, 0}, scratch = {0, 0};
  f->groups = a->B < GROUPS ? a->B : GROUPS;
  f->p = cut_prepared(&from, a);
  f->turned_lanes = take(&from, 12 * z.inner);
  f->turned_c = take(&from, z.ldg * z.inner), f->turned_u = take(&from, z.ldg * z.inner);
  f->dy = take(&from, z.R * z.ldi), f->y = take(&from, z.R * z.ldi);
  f->du = take(&from, z.R * z.ldu);
  f->normed = take(&from, z.R * a->D), f->dnormed = take(&from, z.R * a->D);
  f->zeros = take(&from, z.ldi);
  for (int64_t e = 0; e < GROUPS; e++) f->grads[e] = cut_small_grads(&from, a);
  f->dnorm = take(&from, GROUPS * ROUND_UP(a->D, WIDEST));
  f->dgate = take(&from, 3 * a->I * z.ldg);
  f->broken = take_ints(&from, GROUPS);
  cut_backward_scratch(&scratch, a);
  f->scratch_each = scratch.used > gemm_bytes(a) ? scratch.used : gemm_bytes(a);
  f->scratch = take_bytes(&from, a->workers * f->scratch_each);
  return from.used;
}

XL_API int64_t xl_mlstm_block_backward_bytes(const mlstm_block_arguments *a);
XL_API int xl_mlstm_block_backward(const mlstm_block_arguments *a);

int64_t xl_mlstm_block_backward_bytes(const mlstm_block_arguments *a) {
  backward_pass f = {.a = a, .z = sizes_of(a)};
  return cut_backward(&f, 0);
}

/* 1 if a gradient is not finite: then some are wrong beyond what they should be */
int xl_mlstm_block_backward(const mlstm_block_arguments *a) {
  backward_pass f = {.a = a, .z = sizes_of(a)};
  arena saved = {a->saved, 0};
  f.s = cut_saved(&saved, a);
  cut_backward(&f, a->work);
  const mlstm_weights *w = &a->weights, *d = &a->dweights;
  const mlstm_sizes z = f.z;
  const int64_t I = a->I, D = a->D, R = z.R;
  const int64_t workers = a->workers;

  prepare_weights(a, f.p);
  memset(f.zeros, 0, (size_t)z.ldi * sizeof(float));
  memset(f.turned_lanes, 0, (size_t)(12 * z.inner) * sizeof(float));
  for (int64_t e = 0; a->S == 4 && e < 3; e++)
    spread_lanes(I, w->qkv + e * 4 * I, f.turned_lanes + e * 4 * z.inner, z.inner, 1);
  transpose(z.inner, z.ldg, f.s.fold_c, z.ldg, f.turned_c, z.inner);
  transpose(z.inner, z.ldg, f.s.fold_u, z.ldg, f.turned_u, z.inner);

  if (a->B % workers == 0 && GROUPS % workers == 0)
    xl_parallel_for((int)workers, run_share, &f);
  else { /* few sequences, or shares that differ: the rows of products are shared more evenly */
    xl_parallel_for((int)workers, run_before, &f);
    xl_parallel_for((int)f.groups, run_group, &f);
    xl_parallel_for((int)workers, run_behind, &f);
    xl_parallel_for(GROUPS, norm_group, &f);
  }
  for (int64_t e = 1; e < f.groups; e++) add(f.grads[e].size, f.grads[0].all, f.grads[e].all);
  if (f.groups) write_small_grads(&f);
  for (int64_t e = 1; e < GROUPS; e++) add(D, f.dnorm, f.dnorm + e * ROUND_UP(D, WIDEST));
  write(d->norm, D, f.dnorm);
  add_rows(R, D, a->dout, D, d->down_bias);
  add_rows(R, I, f.du, z.ldu, d->up_bias);
  add_rows(R, I, f.du + z.inner, z.ldu, d->up_bias ? d->up_bias + I : 0);
  xl_parallel_for((int)workers, weight_share, &f);

  int broken = a->dbefore.m && !all_finite(a->B * a->H, a->dbefore.m);
  for (int64_t e = 0; e < GROUPS; e++) broken |= f.broken[e];
  return broken;
}
