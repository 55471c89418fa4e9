/* The sLSTM's loop over time: arguments of its calls, and how its buffers are laid out. */

/* The work is cut into items, one head of a few environments each: the rows of a small product
   h R share every load of R, and items share nothing, so that threads may take them in any order.
   Inside an item the head size is rounded up to whole vectors: the lanes behind D hold zeros. */
#pragma once
#include <stdint.h>

#include "export.h"
#include "vector.h"

enum {
  SLSTM_ROWS = 8,        /* environments of a group, at most */
  SLSTM_PARTS = 8,       /* items of a head, at most; each takes every so-manieth group */
  SLSTM_CHUNK = 256,     /* rows times steps that are filled, and differentiated, together */
};

typedef struct {
  int64_t B, T, H, D;
  int64_t exponential;          /* forget gate: 0 sigmoid, 1 exponential */
  const float *x;               /* [B, T, 4, H, D], gates in the order i, f, z, o, or null: then */
  const float *convolved, *normed;  /* [B, T, H * D]: i and f come from the one, z and o from the */
  const float *weight;          /* other, by [4, H, D (from), D (to)] */
  const float *R;               /* [4, H, D (from), D (to)] */
  const float *b;               /* [4, H, D], or null: none */
  const uint8_t *reset;         /* [B, T] or null */
  const float *h0, *c0, *n0, *m0;  /* [B, H, D], or all null: fresh */
  float *y;                     /* [B, T, H, D] */
  float *hT, *cT, *nT, *mT;     /* [B, H, D]; may be the first state's own memory */
  float *saved;                 /* slstm_saved_size floats for the backward, or null */
  float *work;                  /* slstm_work_size floats */
} xl_slstm_forward_args;

typedef struct {
  int64_t B, T, H, D;
  int64_t exponential, has_state;  /* whether the forward had a first state */
  const float *convolved, *normed, *weight;  /* null where x was given */
  const float *R;
  const uint8_t *reset;
  const float *dy;              /* [B, T, H, D] or null */
  const float *dhT, *dcT, *dnT, *dmT;  /* of the final state, [B, H, D], each or null */
  const float *saved;
  float *dx;                    /* or null: then */
  float *dconvolved, *dnormed, *dweight;  /* the first two may be one */
  float *dR, *db;               /* db may be null */
  float *dh0, *dc0, *dn0, *dm0;    /* [B, H, D], or all null: not wanted */
  float *work;                  /* slstm_backward_work_size floats */
} xl_slstm_backward_args;

/* the width that head sizes are rounded up to */
XL_API int64_t xl_slstm_lanes(const xl_slstm_forward_args *unused);
/* of the forward's arguments the sizes alone are read */
XL_API int64_t xl_slstm_work_bytes(const xl_slstm_forward_args *a);
XL_API int64_t xl_slstm_backward_work_bytes(const xl_slstm_forward_args *a);
XL_API int xl_slstm_forward(const xl_slstm_forward_args *a);
XL_API int xl_slstm_backward(const xl_slstm_backward_args *a);

/* floats */
int64_t slstm_saved_size(int64_t B, int64_t T, int64_t H, int64_t D);
int64_t slstm_work_size(int64_t B, int64_t T, int64_t H, int64_t D);
int64_t slstm_backward_work_size(int64_t B, int64_t T, int64_t H, int64_t D);

/* Of every step and row: these five, [SLSTM_GATES][Dp] in a row. */
enum { SLSTM_WRITE, SLSTM_FORGET, SLSTM_TO_F, SLSTM_Z, SLSTM_O, SLSTM_GATES };

static inline int64_t slstm_padded(int64_t D) { return (D + VW - 1) / VW * VW; }
static inline int64_t slstm_groups(int64_t B) { return (B + SLSTM_ROWS - 1) / SLSTM_ROWS; }
static inline int64_t slstm_parts(int64_t B) {
  int64_t groups = slstm_groups(B);
  return groups < SLSTM_PARTS ? groups : SLSTM_PARTS;
}

/* What the backward reads again, of one head of one group of `rows` environments. */
typedef struct {
  float *gates;     /* [T][rows][SLSTM_GATES][Dp] */
  float *h, *c, *n; /* [T + 1][rows][Dp], the first state leads; h is zero where a reset follows */
} slstm_saved;

static inline slstm_saved slstm_saved_of(float *base, int64_t B, int64_t T, int64_t D, int64_t head,
                                         int64_t group) {
  int64_t Dp = slstm_padded(D), left = B - group * SLSTM_ROWS;
  int64_t rows = left < SLSTM_ROWS ? left : SLSTM_ROWS;
  int64_t per_row = (T * SLSTM_GATES + (T + 1) * 3) * Dp;
  slstm_saved s;
  s.gates = base + (head * B + group * SLSTM_ROWS) * per_row;
  s.h = s.gates + T * rows * SLSTM_GATES * Dp;
  s.c = s.h + (T + 1) * rows * Dp;
  s.n = s.c + (T + 1) * rows * Dp;
  return s;
}
