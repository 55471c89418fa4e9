/* What stands between the calls of a minibatch: its rows of what was collected, and the sum of the
   gradients that two heads have for the same features. */
#include <stdint.h>
#include <string.h>

#include "export.h"
#include "parallel.h"
#include "vector.h"

#define PIECE 4096 /* numbers that a thread sums at once */

typedef struct {
  int64_t bytes; /* of a row */
  const char *from;
  char *to;
} row_tensor;

typedef struct {
  int64_t count, rows, tensors; /* how many are taken of how many, of each tensor */
  const int64_t *index;         /* [count] */
  const row_tensor *each;
} rows_arguments;

typedef struct {
  int64_t size;
  const float *a, *b;
  float *to; /* may be one of them */
} sum_arguments;

XL_API int xl_rows(const rows_arguments *a);
XL_API int xl_sum(const sum_arguments *a);

static void take_row(int row, int worker, void *context) {
  (void)worker;
  const rows_arguments *a = context;
  for (const row_tensor *t = a->each; t < a->each + a->tensors; t++)
    if (t->bytes) /* an empty tensor lies nowhere */
      memcpy(t->to + row * t->bytes, t->from + a->index[row] * t->bytes, (size_t)t->bytes);
}

/* 1 if there is no such row: then none is taken */
int xl_rows(const rows_arguments *a) {
  for (int64_t e = 0; e < a->count; e++)
    if (a->index[e] < 0 || a->index[e] >= a->rows) return 1;
  xl_parallel_for((int)a->count, take_row, (void *)a);
  return 0;
}

static void sum_piece(int index, int worker, void *context) {
  (void)worker;
  const sum_arguments *s = context;
  const int64_t from = (int64_t)index * PIECE, rest = s->size - from;
  FOR_VECTORS(i, rest < PIECE ? rest : PIECE, left) {
    store_left(s->to + from + i, load_left(s->a + from + i, left) + load_left(s->b + from + i, left),
               left);
  }
}

int xl_sum(const sum_arguments *a) {
  xl_parallel_for((int)((a->size + PIECE - 1) / PIECE), sum_piece, (void *)a);
  return 0;
}
