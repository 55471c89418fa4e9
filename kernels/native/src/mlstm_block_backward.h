/* What the backward of the mLSTM block is made of, for its two files. */
#pragma once
#include "mlstm_block.h"

#define GROUPS 8 /* of sequences; each sums into gradients of its own, which are then added in order */

/* Gradients of the small weights, as vectors run over them. */
typedef struct {
  float *taps, *conv_bias, *head_norm, *skip, *qkv_bias;
  float *lanes;            /* [3, 4, inner] for S = 4, else [3 I / S, S, S] */
  float *fold_c, *fold_u;  /* [inner, ldg] */
  float *gates;            /* [ldg] sums over all steps */
} small_grads;

INLINE int64_t lanes_size(const mlstm_block_arguments *a) {
  return a->S == 4 ? 12 * sizes_of(a).inner : 3 * a->I * a->S;
}

INLINE small_grads cut_small_grads(arena *from, const mlstm_block_arguments *a) {
  const mlstm_sizes z = sizes_of(a);
  small_grads g;
  g.taps = take(from, a->W * z.inner);
  g.conv_bias = take(from, z.inner), g.head_norm = take(from, z.inner);
  g.skip = take(from, z.inner), g.qkv_bias = take(from, 3 * z.inner);
  g.lanes = take(from, lanes_size(a));
  g.fold_c = take(from, z.inner * z.ldg), g.fold_u = take(from, z.inner * z.ldg);
  g.gates = take(from, z.ldg);
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
  char *scratch;
  int64_t scratch_each;
} backward_pass;

/* The middle of the block, from dy to du and the small gradients, for one sequence. */
void sequence_backward(const backward_pass *f, int64_t b, const small_grads *g, backward_scratch w);
