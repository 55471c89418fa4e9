/* The whole sLSTM block in one call: arguments, and how its buffers are laid out.

     u = norm(x)                      c = silu(convolution(u)), or u without one
     y = sLSTM, i and f made of c, z and o of u
     x2 = x + head norm(y)            out = x2 + down(activation(gate) * up), (gate, up) = up(norm(x2))

   Each pass takes rows or environments one by one, and leaves them in the cache for the next. Sums
   over rows go through a fixed number of parts, so that threads do not change them. */
#pragma once
#include "activation.h"
#include "arena.h"
#include "causal_window.h"
#include "layer_norm.h"
#include "packed.h"
#include "parallel.h"
#include "slstm.h"

enum {
  BLOCK_ROWS = 96,   /* rows of a piece of the feed-forward; a multiple of 6 and of 8 */
  BLOCK_PARTS = 16,  /* sums over rows, at most */
};

/* Weights, or their gradients. [D, W] taps, the last for the present step, as conv1d has them */
typedef struct {
  float *norm, *taps, *taps_bias, *input, *R, *b, *head_norm;
  float *ff_norm, *up, *up_bias, *down, *down_bias; /* [2 F, D] and [D, F]; the biases or null */
} slstm_block_weights;

/* [B, W - 1, D] and four times [B, D]; all null: fresh, or zero gradients */
typedef struct {
  float *window, *h, *c, *n, *m;
} slstm_block_state;

typedef struct {
  int64_t B, T, D, H;
  int64_t W, F, activation;     /* W = 0: no convolution; F = 0: no feed-forward */
  int64_t exponential, workers; /* the most that the call may run on */
  slstm_block_weights weights;
  slstm_block_state before;
  float *x, *out;               /* [B, T, D] */
  uint8_t *reset;               /* [B, T] or null */
  slstm_block_state after;      /* may be the memory of `before` */
  float *saved;                 /* for the backward, or null */
  float *work;
} xl_slstm_block_args;

typedef struct {
  xl_slstm_block_args forward;  /* as it was; `after`, `out` and `work` are not read */
  float *dout;                  /* [B, T, D] or null: zero */
  slstm_block_state dafter;     /* each or null */
  float *dx;
  slstm_block_weights dweights;
  slstm_block_state dbefore;    /* all or none */
  float *work;
} xl_slstm_block_backward_args;

XL_API int64_t xl_slstm_block_saved_bytes(const xl_slstm_block_args *a);
XL_API int64_t xl_slstm_block_work_bytes(const xl_slstm_block_args *a);
XL_API int64_t xl_slstm_block_backward_work_bytes(const xl_slstm_block_args *a);
XL_API int xl_slstm_block_forward(const xl_slstm_block_args *a);
XL_API int xl_slstm_block_backward(const xl_slstm_block_backward_args *a);

/* What passes hand to each other; of a row unless noted. */
typedef struct {
  float *u, *mean, *inverse;            /* [D], moments of x */
  float *c, *gate;                      /* [D]: c, and the sigmoid in it */
  float *y, *head_mean, *head_inverse;  /* [D], [H], [H] */
  float *x2, *mean2, *inverse2;         /* [D], moments of x2 */
  float *ff;                            /* [2 F]: gate and up */
  int32_t *seen, *kept;                 /* how far the window sees; of an environment */
  float *cell;                          /* of the scan, in whole */
} block_saved;

/* Rows of the feed-forward that are worked on together: normed, hidden, and both halves. */
INLINE int64_t piece_size(const xl_slstm_block_args *a) { return BLOCK_ROWS * (a->D + 3 * a->F); }
INLINE int64_t block_rows(const xl_slstm_block_args *a) { return a->B * a->T; }
INLINE int64_t block_pieces(const xl_slstm_block_args *a) {
  return (block_rows(a) + BLOCK_ROWS - 1) / BLOCK_ROWS;
}

static inline block_saved cut_saved(arena *from, const xl_slstm_block_args *a, int with_cell) {
  const int64_t R = block_rows(a);
  block_saved s = {0};
  s.u = take(from, R * a->D), s.mean = take(from, R), s.inverse = take(from, R);
  if (a->W) {
    s.c = take(from, R * a->D), s.gate = take(from, R * a->D);
    s.seen = take_ints(from, R), s.kept = take_ints(from, a->B);
  } else {
    s.c = s.u;
  }
  s.y = take(from, R * a->D);
  s.head_mean = take(from, R * a->H), s.head_inverse = take(from, R * a->H);
  if (a->F) {
    s.x2 = take(from, R * a->D), s.mean2 = take(from, R), s.inverse2 = take(from, R);
    if (with_cell) s.ff = take(from, R * 2 * a->F);
  }
  if (with_cell) s.cell = take(from, slstm_saved_size(a->B, a->T, a->H, a->D / a->H));
  return s;
}
