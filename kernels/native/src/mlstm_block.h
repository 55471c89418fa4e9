/* The whole mLSTM block: what Python hands over, and how the buffers are cut.

   R = B * T rows of D channels come in; inside are I channels of H heads. `inner` is I rounded up
   to whole vectors, with zeros behind I, so that no loop over channels has an end of its own. */
#pragma once
#include "arena.h"
#include "block_diagonal.h"
#include "conv1d.h"
#include "export.h"
#include "layer_norm.h"
#include "mlstm_block_step.h"
#include "mlstm_state.h"
#include "parallel.h"
#include "shared_gemm.h"

#define WIDEST 16 /* sizes are rounded up to this, whatever VW: buffers are the same for all */

typedef struct {
  int64_t B, T, D, I, H, W, S, exponential; /* W = 0: no convolution */
  int64_t workers;                          /* most threads */
  const float *x;                           /* [B, T, D] */
  const uint8_t *reset;                     /* [B, T] or null */
  mlstm_weights weights;
  mlstm_state before;
  float *out; /* [B, T, D] */
  mlstm_state after;
  const float *dout; /* from here on for the backward only; null: zero */
  mlstm_state dafter;
  float *dx;
  mlstm_weights dweights;
  mlstm_state dbefore;
  char *saved, *work;
} mlstm_block_arguments;

/* What the forward keeps for the backward. */
typedef struct {
  float *mean, *inverse;           /* [R] of the norm */
  float *up;                       /* [R, ldu]: u and z */
  float *conv, *gate_of_conv;      /* [R, ldi]: c, and sigmoid(p) of c = p sigmoid(p) */
  float *gates;                    /* [R, ldg]: i and f */
  float *h, *h_mean, *h_inverse;   /* [R, ldi], [R, H] */
  chunk_record *records;           /* [B, H, N] */
  float *C, *n;                    /* [B, H, N + 1, K, K] padded: before every chunk, and behind */
  gate_run *runs;                  /* [B, H]: the last state's */
  gate_run *first;                 /* [B, H]: as the first state was */
  float *fold_c, *fold_u;          /* [inner, ldg]: the gates out of c and out of u */
  float *fold_bias;                /* [ldg] */
} mlstm_saved;

/* Sizes that follow from the arguments. */
typedef struct {
  int64_t R, N, inner; /* N chunks a sequence */
  int64_t K, pad;      /* pad: K rounded up to WIDEST */
  int64_t state;       /* floats of a head's C */
  int64_t ldu, ldi, ldg;
  head_size head;
} mlstm_sizes;

INLINE mlstm_sizes sizes_of(const mlstm_block_arguments *a) {
  mlstm_sizes s;
  s.R = a->B * a->T, s.N = (a->T + CHUNK - 1) / CHUNK;
  s.inner = ROUND_UP(a->I, WIDEST);
  s.K = a->I / a->H, s.pad = ROUND_UP(s.K, WIDEST), s.state = s.pad * s.pad;
  s.head = head_size_of(s.K, s.K);
  s.ldu = 2 * s.inner + 16, s.ldi = s.inner + 16; /* rows apart by a power of two fight for lines */
  s.ldg = ROUND_UP(2 * a->H, WIDEST);
  return s;
}

/* The weights that vectors run over, with zeros behind I. */
typedef struct {
  float *taps;      /* [W, inner] */
  float *conv_bias; /* [inner] */
  float *head_norm, *skip;
  float *lanes;     /* [3, 4, inner]: q, k, v, for S = 4 */
  float *qkv_bias;  /* [3, inner] */
  float *gate;      /* [3 I, ldg]: turned, so that vectors run over the gates */
} mlstm_prepared;

INLINE mlstm_prepared cut_prepared(arena *from, const mlstm_block_arguments *a) {
  const int64_t inner = sizes_of(a).inner;
  mlstm_prepared p;
  p.taps = take(from, a->W * inner);
  p.conv_bias = take(from, inner);
  p.head_norm = take(from, inner);
  p.skip = take(from, inner);
  p.lanes = take(from, 12 * inner);
  p.qkv_bias = take(from, 3 * inner);
  p.gate = take(from, 3 * a->I * sizes_of(a).ldg);
  return p;
}

INLINE mlstm_saved cut_saved(arena *from, const mlstm_block_arguments *a) {
  const mlstm_sizes z = sizes_of(a);
  const int64_t X = a->B * a->H;
  mlstm_saved s;
  s.mean = take(from, z.R), s.inverse = take(from, z.R);
  s.up = take(from, z.R * z.ldu);
  s.conv = a->W ? take(from, z.R * z.ldi) : 0;
  s.gate_of_conv = a->W ? take(from, z.R * z.ldi) : 0;
  s.gates = take(from, z.R * z.ldg);
  s.h = take(from, z.R * z.ldi);
  s.h_mean = take(from, z.R * a->H), s.h_inverse = take(from, z.R * a->H);
  s.records = (chunk_record *)take_bytes(from, X * z.N * (int64_t)sizeof(chunk_record));
  s.C = take(from, X * (z.N + 1) * z.pad * z.pad);
  s.n = take(from, X * (z.N + 1) * z.pad);
  s.runs = (gate_run *)take_bytes(from, X * (int64_t)sizeof(gate_run));
  s.first = (gate_run *)take_bytes(from, X * (int64_t)sizeof(gate_run));
  s.fold_c = take(from, z.inner * z.ldg), s.fold_u = take(from, z.inner * z.ldg);
  s.fold_bias = take(from, z.ldg);
  return s;
}

/* zeros behind `width` of `whole` columns */
INLINE void clear_ends(int64_t R, int64_t width, int64_t whole, float *x, int64_t ld) {
  for (int64_t r = 0; width < whole && r < R; r++)
    memset(x + r * ld + width, 0, (size_t)(whole - width) * sizeof(float));
}

/* C and n of a head before its chunk, as they are kept; of chunk N those behind the last one */
INLINE float *kept_C(mlstm_sizes z, mlstm_saved s, int64_t X, int64_t chunk) {
  return s.C + (X * (z.N + 1) + chunk) * z.state;
}
INLINE float *kept_n(mlstm_sizes z, mlstm_saved s, int64_t X, int64_t chunk) {
  return s.n + (X * (z.N + 1) + chunk) * z.pad;
}

/* What one worker uses for one chunk. */
typedef struct {
  float *qkv;           /* [3, CHUNK, ldi] */
  const float **back;   /* [CHUNK, W] rows that the taps see */
  float *past;          /* [W - 1, inner] the convolution's state, where I is no whole vectors */
  float *tiles;         /* [4, CHUNK, pad] of a head that is no multiple of whole vectors */
  float *chunk;         /* of chunk_forward and chunk_backward */
} mlstm_scratch;

INLINE mlstm_scratch cut_scratch(arena *from, const mlstm_block_arguments *a) {
  const mlstm_sizes z = sizes_of(a);
  mlstm_scratch s;
  s.qkv = take(from, 3 * CHUNK * z.ldi);
  s.back = (const float **)take_bytes(from, CHUNK * a->W * (int64_t)sizeof(float *));
  s.past = take(from, a->W * z.inner);
  s.tiles = take(from, 4 * CHUNK * z.pad);
  s.chunk = take(from, chunk_work(z.pad, z.pad));
  return s;
}

/* scratch of the products of the block, one thread's */
INLINE float *cut_gemm(arena *from, const mlstm_block_arguments *a) {
  const mlstm_sizes z = sizes_of(a);
  return take(from, gemm_work(z.inner > a->D ? z.inner : a->D));
}
INLINE int64_t gemm_bytes(const mlstm_block_arguments *a) {
  arena size = {0, 0};
  cut_gemm(&size, a);
  return size.used;
}

/* The state of the convolution of sequence b as rows of whole vectors, null where there is none. */
INLINE const float *conv_past(const mlstm_block_arguments *a, mlstm_scratch w, int64_t b) {
  const mlstm_sizes z = sizes_of(a);
  if (!a->before.conv) return 0;
  const float *past = a->before.conv + b * (a->W - 1) * a->I;
  if (z.inner == a->I) return past;
  for (int64_t e = 0; e < a->W - 1; e++)
    memcpy(w.past + e * z.inner, past + e * a->I, (size_t)a->I * sizeof(float));
  clear_ends(a->W - 1, a->I, z.inner, w.past, z.inner);
  return w.past;
}

/* The weights as vectors run over them. */
void prepare_weights(const mlstm_block_arguments *a, mlstm_prepared p);
/* The gate projection taken through q, k, v: gates = c fold_c + u fold_u + fold_bias. */
void fold_gates(const mlstm_block_arguments *a, mlstm_prepared p, float *fold_c, float *fold_u,
                float *fold_bias);
/* q and k out of c, v out of u, for n rows: each [n, ldi] of qkv [3, CHUNK, ldi]. */
void make_qkv(const mlstm_block_arguments *a, mlstm_prepared p, int64_t n, const float *c,
              int64_t ldc, const float *u, int64_t ldu, float *qkv);
