/* What Python hands over for one step of the mLSTM block; its weights and states, for all calls. */
#pragma once
#include <stdint.h>

/* Weights, or their gradients; null where the block has none. */
typedef struct {
  float *norm;      /* [D] */
  float *up;        /* [2 I, D] */
  float *up_bias;   /* [2 I] */
  float *conv;      /* [I, W] */
  float *conv_bias; /* [I] */
  float *qkv;       /* [3 I / S, S, S] */
  float *qkv_bias;  /* [3 I] */
  float *gate;      /* [2 H, 3 I] */
  float *gate_bias; /* [2 H] */
  float *head_norm; /* [I] */
  float *skip;      /* [I] */
  float *down;      /* [D, I] */
  float *down_bias; /* [D] */
} mlstm_weights;

/* A state, or its gradient; null: fresh, or not wanted. */
typedef struct {
  float *conv; /* [B, W - 1, I] */
  float *C;    /* [B, H, K, K] */
  float *n;    /* [B, H, K] */
  float *m;    /* [B, H] */
} mlstm_state;

typedef struct {
  int64_t B, D, I, H, W, S, exponential; /* W = 0: no convolution */
  int64_t workers;                       /* most threads */
  const float *x;                        /* [B, D] */
  const uint8_t *reset;                  /* [B] or null */
  mlstm_weights weights;
  mlstm_state before; /* null: fresh */
  float *out;         /* [B, D] */
  mlstm_state after;  /* may be the one before */
  char *work;
} mlstm_step_arguments;
