/* The weights of the parts of an observation side by side. */
#ifndef XL_JOINED_H
#define XL_JOINED_H

#include <stdint.h>

/* of one part: a layer's [width, inputs] and [width], or an embedding's [inputs, width] and null */
typedef struct {
  int64_t inputs, is_embedding;
  const float *weight, *bias;
  float *dweight, *dbias;
} joined_part;

typedef struct {
  int64_t width, inputs, count;
  const joined_part *parts;
  const float *scale; /* one number; null: 1 */
  float *weight, *bias; /* [width, inputs], [width] */
  const float *dweight, *dbias;
} joined_arguments;

#endif
