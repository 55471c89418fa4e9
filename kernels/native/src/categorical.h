/* Choices out of logits: their terms, and the way back (categorical.c). */
#pragma once
#include <stdint.h>
#include "export.h"

typedef struct {
  int64_t rows, choices;
  const float *logits;   /* [rows, choices] */
  const int64_t *action; /* [rows], within the choices */
  float *log_p;          /* [rows, choices]: of each choice, for the backward */
  float *log_prob, *entropy, *mean; /* [rows]; mean may be null */
  const float *dlog_prob, *dentropy, *dmean; /* each or null */
  float *dlogits;
} categorical_arguments;

/* 1 if an action is none of the choices: then torch says which */
XL_API int xl_categorical_forward(const categorical_arguments *a);
XL_API int xl_categorical_backward(const categorical_arguments *a);
