/* A layer of an LSTM or a GRU over whole sequences with resets inside, and as a step.

   What x brings is one large product beforehand. Then groups of environments go through time by
   themselves, each with a small product per step: threads take groups. G is the number of gates of
   the weights, 4 or 3, in torch's order: i, f, g, o or r, z, n. */
#pragma once
#include "arena.h"
#include "export.h"
#include "packed.h"
#include "parallel.h"

enum {
  RECURRENT_ROWS = TILE_ROWS == 6 ? 10 : 8, /* environments of a group at most: whole tiles */
  RECURRENT_PIECE = 96,                     /* rows of a piece of the products without time */
};

typedef struct {
  int64_t B, T, I, H;           /* widths of x and of h */
  int64_t gru, workers;
  int64_t stride;               /* of the states' rows */
  const float *x;               /* [B, T, I] */
  const float *w_ih, *w_hh;     /* [G H, I], [G H, H] */
  const float *b_ih, *b_hh;     /* [G H], or both null */
  const uint8_t *reset;         /* [B, T] or null */
  const float *h0, *c0;         /* [B, H]; null: zeros. c of an LSTM alone */
  float *y;                     /* [B, T, H] */
  float *hT, *cT;               /* may be the memory of h0, c0 */
  float *saved;                 /* for the backward, or null */
  float *work;
} xl_recurrent_args;

typedef struct {
  xl_recurrent_args forward;    /* as it was, with y; hT, cT and work are not read */
  const float *dy, *dhT, *dcT;  /* each or null; states are rows of H here */
  float *dx, *dw_ih, *dw_hh, *db_ih, *db_hh;
  float *dh0, *dc0;             /* or null */
  float *work;
} xl_recurrent_backward_args;

XL_API int64_t xl_recurrent_saved_bytes(const xl_recurrent_args *a);
XL_API int64_t xl_recurrent_work_bytes(const xl_recurrent_args *a);
XL_API int64_t xl_recurrent_backward_work_bytes(const xl_recurrent_args *a);
XL_API int xl_recurrent_forward(const xl_recurrent_args *a);
XL_API int xl_recurrent_backward(const xl_recurrent_backward_args *a);

/* Of every row: of an LSTM the gates and c, [4][H] and [H]; of a GRU r, z, n and what h brings to n. */
typedef struct {
  float *gates, *c;
} recurrent_saved;

INLINE int64_t gate_width(const xl_recurrent_args *a) { return (a->gru ? 3 : 4) * a->H; }
/* Whether the weights are packed for the products in time: then a row's sums are the same in any
   group. Fewer steps read them where they lie, and there one or two rows add in another order. */
INLINE int packs_hh(const xl_recurrent_args *a) { return a->T >= 4; }
/* Environments of a group: no more than each thread has. One alone would read the weights for one. */
INLINE int64_t recurrent_rows(const xl_recurrent_args *a) {
  const int64_t share = (a->B + a->workers - 1) / a->workers;
  if (!packs_hh(a)) return RECURRENT_ROWS;
  return share < 2 ? 2 : share < RECURRENT_ROWS ? share : RECURRENT_ROWS;
}
INLINE int64_t recurrent_groups(const xl_recurrent_args *a) {
  return (a->B + recurrent_rows(a) - 1) / recurrent_rows(a);
}
INLINE int64_t recurrent_pieces(const xl_recurrent_args *a) {
  return (a->B * a->T + RECURRENT_PIECE - 1) / RECURRENT_PIECE;
}

static inline recurrent_saved cut_recurrent(arena *from, const xl_recurrent_args *a) {
  recurrent_saved s = {.gates = take(from, a->B * a->T * 4 * a->H)};
  if (!a->gru) s.c = take(from, a->B * a->T * a->H);
  return s;
}
