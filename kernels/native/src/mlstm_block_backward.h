/* What the backward of the mLSTM block is made of, for its two files. */
#pragma once
#include "mlstm_block.h"

/* Groups of sequences: each sums into gradients of its own, which are then added in order. */
#define GROUPS 8

/* Gradients of the small weights, as vectors run over them. */
typedef struct {
  float *taps, *conv_bias, *head_norm, *skip, *qkv_bias;
  float *lanes;            /* [3, 4, inner] for S = 4, else [3 I / S, S, S] */
  float *fold_c, *fold_u;  /* [inner, ldg] */
  float *gates;            /* [ldg] sums over all steps */
  float *all;              /* all of them, one behind the other */
  int64_t size;
} small_grads;

INLINE small_grads cut_small_grads(arena *from, const mlstm_block_arguments *a) {
  const mlstm_sizes z = sizes_of(a);
  const int64_t folded = z.inner * z.ldg;
  const int64_t lanes = a->S == 4 ? 12 * z.inner : ROUND_UP(3 * a->I * a->S, WIDEST);
  small_grads g = {.size = (a->W + 6) * z.inner + lanes + 2 * folded + z.ldg};
  g.all = take(from, g.size);
  g.taps = g.all, g.conv_bias = g.taps + a->W * z.inner;
  g.head_norm = g.conv_bias + z.inner, g.skip = g.head_norm + z.inner;
  g.qkv_bias = g.skip + z.inner, g.lanes = g.qkv_bias + 3 * z.inner;
  g.fold_c = g.lanes + lanes, g.fold_u = g.fold_c + folded, g.gates = g.fold_u + folded;
  return g;
}

/* What one worker uses for one sequence. */
typedef struct {
  mlstm_scratch forward;  /* q, k, v, the rows that taps see, tiles */
  float *dqkv;            /* [3, CHUNK, ldi] */
  float *dc;              /* [CHUNK, ldi]; in front of the convolution */
  float *later;           /* [W - 1, ldi]: the first rows of dc of later chunks */
  const float **ahead;    /* [CHUNK, W]: the rows of dc that saw a row */
  float *dgates;          /* [CHUNK, ldg] */
  float *dC, *dn;         /* [H, pad, pad], [H, pad] */
  int32_t *reach;         /* [T] */
  float *dtiles;          /* [4, CHUNK, pad] */
} backward_scratch;

INLINE backward_scratch cut_backward_scratch(arena *from, const mlstm_block_arguments *a) {
  const mlstm_sizes z = sizes_of(a);
  backward_scratch s;
  s.forward = cut_scratch(from, a);
  s.dqkv = take(from, 3 * CHUNK * z.ldi);
  s.dc = take(from, CHUNK * z.ldi);
  s.later = take(from, a->W * z.ldi);
  s.ahead = (const float **)take_bytes(from, CHUNK * a->W * (int64_t)sizeof(float *));
  s.dgates = take(from, CHUNK * z.ldg);
  s.dC = take(from, a->H * z.pad * z.pad), s.dn = take(from, a->H * z.pad);
  s.reach = take_ints(from, a->T);
  s.dtiles = take(from, 4 * CHUNK * z.pad);
  return s;
}

typedef struct {
  const mlstm_block_arguments *a;
  mlstm_sizes z;
  mlstm_saved s;
  mlstm_prepared p;
  float *turned_lanes;           /* as `lanes`, of the transposed blocks */
  float *turned_c, *turned_u;    /* the folds, [ldg, inner] */
  float *dy, *y, *du;            /* [R, ldi] twice, [R, ldu]: gradients of u and z */
  float *normed, *dnormed;       /* [R, D] */
  float *zeros;                  /* [ldi] */
  int64_t groups;
  small_grads grads[GROUPS];
  float *dnorm;                  /* [GROUPS, D] */
  float *dgate;                  /* [3 I, ldg]: turned, as `gate` is */
  int32_t *broken;               /* [GROUPS]: some rows of dx are not finite */
  char *scratch;
  int64_t scratch_each;
} backward_pass;

/* The middle of the block, from dy to du and the small gradients, for one sequence. */
void sequence_backward(const backward_pass *f, int64_t b, const small_grads *g, backward_scratch w);
