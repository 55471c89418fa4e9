/* One buffer cut into parts: how large it must be is found by cutting a null pointer first. */
#pragma once
#include "vector.h"

typedef struct {
  char *base;
  int64_t used; /* bytes */
} arena;

INLINE void *take_bytes(arena *from, int64_t bytes) {
  char *p = from->base ? from->base + from->used : 0;
  from->used += ROUND_UP(bytes, 64); /* a cache line, and a vector of any width */
  return p;
}
INLINE float *take(arena *from, int64_t floats) {
  return (float *)take_bytes(from, floats * (int64_t)sizeof(float));
}
INLINE int32_t *take_ints(arena *from, int64_t n) {
  return (int32_t *)take_bytes(from, n * (int64_t)sizeof(int32_t));
}
INLINE double *take_doubles(arena *from, int64_t n) {
  return (double *)take_bytes(from, n * (int64_t)sizeof(double));
}
