/* One buffer cut into parts: how large it must be is found by cutting a null pointer first. */
#pragma once
#include "vector.h"

/* Under AddressSanitizer parts are fenced off from each other: it knows the whole buffer alone. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define FENCE 64
#else
#define FENCE 0
#define ASAN_POISON_MEMORY_REGION(p, bytes) ((void)(p))
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes) ((void)(p))
#endif

typedef struct {
  char *base;
  int64_t used; /* bytes */
} arena;

INLINE void *take_bytes(arena *from, int64_t bytes) {
  char *p = from->base ? from->base + from->used : 0;
  const int64_t whole = ROUND_UP(bytes, 64) + FENCE; /* a cache line, and a vector of any width */
  if (p) {
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    ASAN_POISON_MEMORY_REGION(p + bytes, whole - bytes);
  }
  from->used += whole;
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
