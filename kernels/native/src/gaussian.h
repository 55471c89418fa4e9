/* Independent normals: their terms, and the way back (gaussian.c). */
#pragma once
#include <stdint.h>
#include "export.h"

typedef struct {
  int64_t rows, numbers;
  const float *params; /* [rows, 2 numbers]: means, then log standard deviations */
  const float *action; /* [rows, numbers] */
  const float *options; /* what is added to the latter, and between what they are held */
  float *log_prob, *entropy;         /* [rows] */
  const float *dlog_prob, *dentropy; /* each or null */
  float *dparams;
} gaussian_arguments;

XL_API int xl_gaussian_forward(const gaussian_arguments *a);
XL_API int xl_gaussian_backward(const gaussian_arguments *a);
