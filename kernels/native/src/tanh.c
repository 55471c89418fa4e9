/* tanh of any number of floats. */
#include "export.h"
#include "parallel.h"
#include "vector.h"

enum { AT_ONCE = 8192 }; /* of one index of the loop: fewer are not worth a thread */

typedef struct {
  int64_t count;
  const float *x;
  float *y; /* may be x */
} tanh_arguments;

XL_API int xl_tanh(const tanh_arguments *a);

static void run_part(int index, int worker, void *context) {
  (void)worker;
  const tanh_arguments *a = context;
  const int64_t first = (int64_t)index * AT_ONCE, rest = a->count - first;
  const float *x = a->x + first;
  float *y = a->y + first;
  FOR_VECTORS(i, rest < AT_ONCE ? rest : AT_ONCE, left)
    store_left(y + i, vtanh(load_left(x + i, left)), left);
}

int xl_tanh(const tanh_arguments *a) {
  const int64_t parts = (a->count + AT_ONCE - 1) / AT_ONCE;
  if (parts > INT32_MAX) return 1;
  xl_parallel_for((int)parts, run_part, (void *)a);
  return 0;
}
