/* One step of Adam (Kingma and Ba 2015, arXiv:1412.6980) on gradients that are first scaled down
   together to a largest norm: two passes over memory, where torch has five. */
#include "export.h"
#include "parallel.h"
#include "vector.h"

#define AT_ONCE 1024 /* squares that are summed in float; sums of these in double */

typedef struct {
  int64_t size;
  float *weight, *grad, *mean, *square, *step; /* step: one number, how many there were */
} adam_tensor;

/* in the order of OPTIONS in adam.py */
enum { LEARNING_RATE, BETA1, BETA2, EPS, LIMIT };

typedef struct {
  int64_t count;
  const adam_tensor *tensors;
  const double *options;
  double *squares; /* [count] scratch */
  float *norm;     /* of all gradients before they are scaled */
} adam_arguments;

typedef struct {
  const adam_arguments *a;
  float scale; /* of the gradients */
} adam_pass;

static void sum_squares(int index, int worker, void *context) {
  (void)worker;
  const adam_arguments *a = ((const adam_pass *)context)->a;
  const adam_tensor *t = a->tensors + index;
  double sum = 0;
  for (int64_t from = 0; from < t->size; from += AT_ONCE) {
    const int64_t rest = t->size - from;
    sum += dot(rest < AT_ONCE ? rest : AT_ONCE, t->grad + from, t->grad + from);
  }
  a->squares[index] = sum;
}

static void update(int index, int worker, void *context) {
  (void)worker;
  const adam_pass *f = context;
  const adam_tensor *t = f->a->tensors + index;
  const double *o = f->a->options;
  const double step = *t->step += 1;
  const vf rate = broadcast((float)(o[LEARNING_RATE] / (1 - pow(o[BETA1], step))));
  const vf root = broadcast((float)(1 / sqrt(1 - pow(o[BETA2], step))));
  const vf keep1 = broadcast((float)o[BETA1]), take1 = broadcast((float)(1 - o[BETA1]));
  const vf keep2 = broadcast((float)o[BETA2]), take2 = broadcast((float)(1 - o[BETA2]));
  const vf scale = broadcast(f->scale), eps = broadcast((float)o[EPS]);
  FOR_VECTORS(i, t->size, left) {
    vf g = load_left(t->grad + i, left);
    if (f->scale != 1) {
      g *= scale;
      store_left(t->grad + i, g, left);
    }
    const vf mean = keep1 * load_left(t->mean + i, left) + take1 * g;
    const vf square = keep2 * load_left(t->square + i, left) + take2 * g * g;
    store_left(t->mean + i, mean, left);
    store_left(t->square + i, square, left);
    store_left(t->weight + i,
               load_left(t->weight + i, left) - rate * mean / (vsqrt(square) * root + eps), left);
  }
}

XL_API int xl_adam(const adam_arguments *a);

/* 1 if the norm is not finite: then nothing has changed */
int xl_adam(const adam_arguments *a) {
  adam_pass f = {.a = a};
  xl_parallel_for((int)a->count, sum_squares, &f);
  double sum = 0;
  for (int64_t e = 0; e < a->count; e++) sum += a->squares[e];
  *a->norm = (float)sqrt(sum);
  if (!isfinite(*a->norm)) return 1;
  const double scale = a->options[LIMIT] / ((double)*a->norm + 1e-6); /* as torch has it */
  f.scale = scale < 1 ? (float)scale : 1;
  xl_parallel_for((int)a->count, update, &f);
  return 0;
}
