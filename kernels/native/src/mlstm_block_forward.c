/* The mLSTM block over whole sequences, forward. The passes, R = B * T rows:

   1. norm and up, all rows: one product [R, D] x [D, 2 I]
   2. each sequence by itself, chunk after chunk, so that what a pass writes the next one finds in
      the cache: convolution and SiLU, q k v, gates, the cell head by head, head norm, skip, gate
   3. down and the residual, all rows: one product [R, I] x [I, D]

   A worker takes its sequences through all three, where there are enough of them: passes that all
   wait for each other cost 4 % of the block (measured, two threads). */
#include "mlstm_block.h"

typedef struct {
  const mlstm_block_arguments *a;
  mlstm_sizes z;
  mlstm_saved s;
  mlstm_prepared p;
  float *y, *zeros; /* [R, ldy], [inner] */
  int32_t *broken;  /* [workers]: some rows that one of them made are not finite */
  int64_t ldy;
  char *scratch;
  int64_t scratch_each;
} forward_pass;

/* norm and up for the rows from r0 to r1 */
static void up_rows(const forward_pass *f, int64_t r0, int64_t r1, float *work) {
  const mlstm_block_arguments *a = f->a;
  const mlstm_sizes z = f->z;
  float *normed = f->y; /* not yet in use for these rows */
  for (int64_t r = r0; r < r1; r++) {
    row_moments(a->D, a->x + r * a->D, f->s.mean + r, f->s.inverse + r);
    normalise_row(a->D, a->x + r * a->D, a->weights.norm, f->s.mean[r], f->s.inverse[r],
                  normed + r * f->ldy);
  }
  for (int64_t half = 0; half < 2; half++) {
    float *up = f->s.up + r0 * z.ldu + half * z.inner;
    own_gemm(r1 - r0, a->I, a->D, (matrix){normed + r0 * f->ldy, f->ldy, 0},
             (matrix){a->weights.up + half * a->I * a->D, a->D, 1}, up, z.ldu,
             a->weights.up_bias ? a->weights.up_bias + half * a->I : 0, 0, work);
    clear_ends(r1 - r0, a->I, z.inner, up, z.ldu);
  }
}

/* down and the residual for those rows, and whether they are finite */
static void down_rows(const forward_pass *f, int64_t r0, int64_t r1, float *work, int32_t *broken) {
  const mlstm_block_arguments *a = f->a;
  const int64_t D = a->D;
  own_gemm(r1 - r0, D, a->I, (matrix){f->y + r0 * f->ldy, f->ldy, 0},
           (matrix){a->weights.down, a->I, 1}, a->out + r0 * D, D, a->x + r0 * D, D, work);
  for (int64_t r = r0; a->weights.down_bias && r < r1; r++)
    for (int64_t i = 0; i < D; i++) a->out[r * D + i] += a->weights.down_bias[i];
  *broken = !all_finite((r1 - r0) * D, a->out + r0 * D);
}

INLINE void silu_at(vf p, int64_t at, float *c, float *gate) {
  const vf sigmoid = vsigmoid(p);
  store(gate + at, sigmoid);
  store(c + at, p * sigmoid);
}

INLINE void convolve_rows(const forward_pass *f, int64_t n, int64_t W, const float *const *back,
                          float *c, float *gate) {
  const int64_t ldi = f->z.ldi;
  int64_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (int64_t i = 0; i < f->z.inner; i += VW) {
      const vf bias = load(f->p.conv_bias + i);
      const four_steps p = convolve_four(i, W, back + j * W, f->p.taps, f->z.inner,
                                         (four_steps){bias, bias, bias, bias});
      silu_at(p.a, j * ldi + i, c, gate);
      silu_at(p.b, (j + 1) * ldi + i, c, gate);
      silu_at(p.c, (j + 2) * ldi + i, c, gate);
      silu_at(p.d, (j + 3) * ldi + i, c, gate);
    }
  for (; j < n; j++)
    for (int64_t i = 0; i < f->z.inner; i += VW) {
      const vf bias = load(f->p.conv_bias + i);
      silu_at(convolve_at(i, VW, W, back + j * W, f->p.taps, f->z.inner, bias), j * ldi + i, c, gate);
    }
}

static void run_heads(const forward_pass *f, mlstm_scratch w, int64_t b, int64_t chunk, int64_t n) {
  const mlstm_block_arguments *a = f->a;
  const mlstm_sizes z = f->z;
  const int64_t t0 = chunk * CHUNK, r0 = b * a->T + t0, size = z.head.Kp;
  const int odd = size > z.K;
  for (int64_t head = 0; head < a->H; head++) {
    const int64_t X = b * a->H + head;
    const float *gates = f->s.gates + r0 * z.ldg + head;
    chunk_record *record = f->s.records + X * z.N + chunk;
    chunk_gates(n, t0, gates, gates + a->H, z.ldg, a->reset ? a->reset + r0 : 0,
                a->exponential != 0, 1.0f / sqrtf((float)z.K), f->s.runs + X, record);
    rows part[3];
    for (int64_t e = 0; e < 3; e++) {
      part[e] = (rows){w.qkv + e * CHUNK * z.ldi + head * z.K, z.ldi};
      if (odd) part[e] = copy_head(n, z.K, size, part[e], w.tiles + e * CHUNK * z.pad);
    }
    float *h = f->s.h + r0 * z.ldi + head * z.K, *to = odd ? w.tiles + 3 * CHUNK * z.pad : h;
    chunk_forward(n, size, size, part[0], part[1], part[2], record, kept_C(z, f->s, X, chunk),
                  kept_n(z, f->s, X, chunk), to, odd ? size : z.ldi, kept_C(z, f->s, X, chunk + 1),
                  kept_n(z, f->s, X, chunk + 1), w.chunk);
    for (int64_t r = 0; odd && r < n; r++)
      memcpy(h + r * z.ldi, to + r * size, (size_t)z.K * sizeof(float));
  }
}

/* y = (norm(h) * weight + skip * c) * silu(z) */
INLINE void gate_rows(const forward_pass *f, int64_t r0, int64_t n, const float *c, int64_t ldc,
                      int whole) {
  const mlstm_sizes z = f->z;
  for (int64_t r = r0; r < r0 + n; r++, c += ldc) {
    float *mean = f->s.h_mean + r * f->a->H, *inverse = f->s.h_inverse + r * f->a->H;
    for (int64_t head = 0; head < f->a->H; head++) {
      const int64_t at = head * z.K;
      const float *h = f->s.h + r * z.ldi + at, *gate = f->s.up + r * z.ldu + z.inner + at;
      row_moments(z.K, h, mean + head, inverse + head);
      FOR_VECTORS(i, z.K, more) {
        const int64_t left = whole ? VW : more;
        const vf centred = load_left(h + i, left) - broadcast(mean[head]);
        const vf normed = centred * broadcast(inverse[head]);
        const vf skipped = load_left(f->p.skip + at + i, left) * load_left(c + at + i, left);
        const vf x = load_left(gate + i, left);
        const vf y = normed * load_left(f->p.head_norm + at + i, left) + skipped;
        store_left(f->y + r * f->ldy + at + i, y * x * vsigmoid(x), left);
      }
    }
  }
}

static void run_sequence(const forward_pass *f, int64_t b, char *scratch) {
  const mlstm_block_arguments *a = f->a;
  const mlstm_sizes z = f->z;
  arena from = {scratch, 0};
  const mlstm_scratch w = cut_scratch(&from, a);
  const int64_t state = z.K * z.K;
  for (int64_t X = b * a->H; X < (b + 1) * a->H; X++) {
    const float *C = a->before.C ? a->before.C + X * state : 0, *n = C ? a->before.n + X * z.K : 0;
    f->s.first[X] = f->s.runs[X] = begin_gates(z.K, z.K, C, n, C ? a->before.m + X : 0);
    if (C) state_in(z.head, C, n, kept_C(z, f->s, X, 0), kept_n(z, f->s, X, 0));
  }
  const float *u = f->s.up + b * a->T * z.ldu;
  const float *past = conv_past(a, w, b);
  const uint8_t *reset = a->reset ? a->reset + b * a->T : 0;
  int64_t reach = past ? a->W - 1 : -1;
  for (int64_t chunk = 0; chunk < z.N; chunk++) {
    const int64_t t0 = chunk * CHUNK, n = a->T - t0 < CHUNK ? a->T - t0 : CHUNK, r0 = b * a->T + t0;
    const float *c = u + t0 * z.ldu;
    int64_t ldc = z.ldu;
    if (a->W) {
      float *conv = f->s.conv + r0 * z.ldi, *gate = f->s.gate_of_conv + r0 * z.ldi;
      reach = look_back(n, t0, a->W, reset, reach, u, z.ldu, past, z.inner, f->zeros, w.back);
      if (a->W == 4) convolve_rows(f, n, 4, w.back, conv, gate);
      else convolve_rows(f, n, a->W, w.back, conv, gate);
      c = conv, ldc = z.ldi;
    }
    make_qkv(a, f->p, n, c, ldc, u + t0 * z.ldu, z.ldu, w.qkv);
    float *gates = f->s.gates + r0 * z.ldg;
    const int64_t G = ROUND_UP(2 * a->H, VW);
    product(n, G, z.inner, (strided){c, ldc, 1}, WHOLE, f->s.fold_c, z.ldg, gates, z.ldg,
            f->s.fold_bias, 0, 1);
    product(n, G, z.inner, (strided){u + t0 * z.ldu, z.ldu, 1}, WHOLE, f->s.fold_u, z.ldg, gates,
            z.ldg, gates, z.ldg, 1);
    run_heads(f, w, b, chunk, n);
    if (z.K % VW) gate_rows(f, r0, n, c, ldc, 0);
    else gate_rows(f, r0, n, c, ldc, 1);
  }
  if (a->W)
    conv_state_after(a->T, a->I, a->W, reach, u, z.ldu, past, z.inner,
                     a->after.conv + b * (a->W - 1) * a->I);
  for (int64_t X = b * a->H; X < (b + 1) * a->H; X++) {
    state_out(z.head, kept_C(z, f->s, X, z.N), kept_n(z, f->s, X, z.N), a->after.C + X * state,
              a->after.n + X * z.K);
    a->after.m[X] = f->s.runs[X].m == NOTHING ? 0 : (float)f->s.runs[X].m;
    if (!(all_finite(state, a->after.C + X * state) && all_finite(z.K, a->after.n + X * z.K) &&
          isfinite(a->after.m[X])))
      f->s.runs[X].broken = 1;
  }
}

static char *scratch_of(const forward_pass *f, int worker) {
  return f->scratch + worker * f->scratch_each;
}

static float *gemm_scratch(const forward_pass *f, int worker) {
  arena from = {scratch_of(f, worker), 0};
  return cut_gemm(&from, f->a);
}

static void run_up(int index, int worker, void *context) {
  const forward_pass *f = context;
  up_rows(f, share_of(f->z.R, index, f->a->workers), share_of(f->z.R, index + 1, f->a->workers),
          gemm_scratch(f, worker));
}

static void run_one(int index, int worker, void *context) {
  run_sequence(context, index, scratch_of(context, worker));
}

static void run_down(int index, int worker, void *context) {
  const forward_pass *f = context;
  down_rows(f, share_of(f->z.R, index, f->a->workers), share_of(f->z.R, index + 1, f->a->workers),
           gemm_scratch(f, worker), f->broken + index);
}

static void run_share(int index, int worker, void *context) {
  const forward_pass *f = context;
  const int64_t T = f->a->T, workers = f->a->workers;
  const int64_t b0 = share_of(f->a->B, index, workers), b1 = share_of(f->a->B, index + 1, workers);
  up_rows(f, b0 * T, b1 * T, gemm_scratch(f, worker));
  for (int64_t b = b0; b < b1; b++) run_sequence(f, b, scratch_of(f, worker));
  down_rows(f, b0 * T, b1 * T, gemm_scratch(f, worker), f->broken + index);
}

static int64_t cut_forward(forward_pass *f, char *base) {
  const mlstm_block_arguments *a = f->a;
  arena from = {base, 0}, scratch = {0, 0};
  f->ldy = f->z.ldi > ROUND_UP(a->D, WIDEST) ? f->z.ldi : ROUND_UP(a->D, WIDEST);
  f->p = cut_prepared(&from, a);
  f->zeros = take(&from, f->z.inner);
  f->y = take(&from, f->z.R * f->ldy);
  f->broken = take_ints(&from, a->workers);
  cut_scratch(&scratch, a);
  f->scratch_each = scratch.used > gemm_bytes(a) ? scratch.used : gemm_bytes(a);
  f->scratch = take_bytes(&from, a->workers * f->scratch_each);
  return from.used;
}

XL_API int64_t xl_mlstm_block_saved_bytes(const mlstm_block_arguments *a);
XL_API int64_t xl_mlstm_block_forward_bytes(const mlstm_block_arguments *a);
XL_API int xl_mlstm_block_forward(const mlstm_block_arguments *a);

int64_t xl_mlstm_block_saved_bytes(const mlstm_block_arguments *a) {
  arena from = {0, 0};
  cut_saved(&from, a);
  return from.used;
}

int64_t xl_mlstm_block_forward_bytes(const mlstm_block_arguments *a) {
  forward_pass f = {.a = a, .z = sizes_of(a)};
  return cut_forward(&f, 0);
}

/* 1 if something is not finite: results are then wrong beyond what they should be */
int xl_mlstm_block_forward(const mlstm_block_arguments *a) {
  forward_pass f = {.a = a, .z = sizes_of(a)};
  arena saved = {a->saved, 0};
  f.s = cut_saved(&saved, a);
  cut_forward(&f, a->work);
  const mlstm_sizes z = f.z;

  prepare_weights(a, f.p);
  memset(f.zeros, 0, (size_t)z.inner * sizeof(float));
  fold_gates(a, f.p, f.s.fold_c, f.s.fold_u, f.s.fold_bias);
  if (a->B % a->workers == 0) xl_parallel_for((int)a->workers, run_share, &f);
  else { /* few sequences, or shares that differ: the rows of products are shared more evenly */
    xl_parallel_for((int)a->workers, run_up, &f);
    xl_parallel_for((int)a->B, run_one, &f);
    xl_parallel_for((int)a->workers, run_down, &f);
  }

  int broken = 0;
  for (int64_t e = 0; e < a->B * a->H; e++) broken |= f.s.runs[e].broken;
  for (int64_t e = 0; e < a->workers; e++) broken |= f.broken[e];
  return broken;
}
