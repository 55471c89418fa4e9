/* Choices out of logits: their terms, and the way back (categorical.c). */
#pragma once
#include <stdint.h>
#include "export.h"

/* below all that a network says, and above the padding: policy/actions/categorical.py has both */
#define MASKED_LOGIT -1e30f
#define LEAST_LOGIT -1e29f

typedef struct {
  int64_t rows, choices, numbers; /* of each row: logits, and numbers that are chosen by them */
  const int64_t *counts; /* [numbers]: choices of each, side by side; null: one number has them all */
  const float *logits;   /* [rows, choices] */
  const int64_t *action; /* [rows, numbers], each within its choices */
  float *log_p;          /* [rows, choices]: of each choice, for the backward */
  float *entropies;      /* [rows, numbers]: of each number, likewise */
  float *log_prob, *entropy, *mean; /* [rows], sums over the numbers; mean may be null */
  const float *dlog_prob, *dentropy, *dmean; /* each or null */
  float *dlogits;
} categorical_arguments;

/* 1 if an action is none of the choices: then torch says which */
XL_API int xl_categorical_forward(const categorical_arguments *a);
XL_API int xl_categorical_backward(const categorical_arguments *a);
