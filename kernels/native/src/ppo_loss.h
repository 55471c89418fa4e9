/* PPO's loss of what a policy says, and its gradients (ppo_loss.c). */
#pragma once
#include <stdint.h>
#include "export.h"

/* in the order of OPTIONS in ppo_loss.py */
enum { CLIP, VALUE_COEF, ENTROPY_COEF, BARRIER_COEF, VALUE_CLIP, NORMALIZE, LEAST };
/* in the order of PARTS there */
enum { LOSS, POLICY, VALUE, ENTROPY, APPROX_KL, CLIP_FRACTION, BARRIER, NUM_PARTS };

typedef struct {
  int64_t count;
  const float *log_prob, *entropy, *value, *barrier; /* [count], with gradients; no barrier: null */
  const float *old_log_prob, *old_value, *advantage, *target;        /* [count] each */
  const uint8_t *valid;                                              /* [count] or null: all */
  const double *options;
  float *dlog_prob, *dentropy, *dvalue, *dbarrier;
  float *parts;
} ppo_loss_arguments;

XL_API int xl_ppo_loss(const ppo_loss_arguments *a);
